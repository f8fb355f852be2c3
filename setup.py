"""Package metadata; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="scalejax",
    version="0.1.0",
    description=(
        "From a grid of language-model runs to a scaling law with honest intervals, in JAX."
    ),
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=[
        "scaling laws",
        "language models",
        "learning-rate schedules",
        "maximal update parametrization",
        "JAX",
        "Flax",
    ],
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["scalejax", "scalejax.*"]),
    package_data={"scalejax": ["py.typed"]},
    install_requires=[
        "jax>=0.10.2",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "jaxtyping>=0.3.11",
        "numpy>=2.0",
        "scipy>=1.14",
        "tyro>=0.9",
        "rich>=13.7",
        "matplotlib>=3.9",
        "pandas>=2.2",
        "pyarrow>=17",
        "sentencepiece>=0.2",
        # The allocator of workers; see scalejax/launch/allocator.py.
        "cmeel-mimalloc>=3.0; sys_platform == 'linux' and platform_machine in 'x86_64 aarch64'",
        # pip downloads the default corpus. Environments made by uv do not contain it.
        "pip>=23",
    ],
    extras_require={
        # `scalejax plan --topology`: compilers of TPUs and of NVIDIA's GPUs, without
        # the libraries that only running needs.
        "aot": [
            "jax[tpu]>=0.10.2",
            "jax-cuda12-plugin>=0.10.2",
            "nvidia-cuda-nvcc-cu12>=12.9",
            "nvidia-cuda-runtime-cu12>=12.9",
        ],
        "data": [
            "tensorflow-datasets>=4.9.10",
            "seqio>=0.0.20",
            "tensorflow>=2.21",
            "tokenizers>=0.20",
        ],
        "docs": ["mkdocs-material>=9.6,<10", "mkdocstrings[python]>=1.0"],
        "eval": ["lm-eval>=0.4.13"],
        "track": ["tensorboardX>=2.6", "wandb>=0.19.10"],
        "ray": ["ray>=2.50"],
        "gpu": ["jax[cuda12]>=0.10.2"],
        "hf": ["transformers>=4.50", "safetensors>=0.5", "torch>=2.4"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "beartype>=0.22",
            "safetensors>=0.5",
            "ruff==0.17.6",
            "pyright==1.1.414",
            "nbmake>=1.5",
            "ipykernel>=6.29",
        ],
    },
    entry_points={"console_scripts": ["scalejax=scalejax.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
