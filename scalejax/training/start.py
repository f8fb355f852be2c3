"""Initial weights from elsewhere: another run, or a Hugging Face checkpoint.

    start.json     in the folder of a run that begins from other weights: their source
                   and their hash

The source may be replaced while the run waits or is stopped. It would then be another
run under the same id, which is why the hash is compared at every start.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import jax

from scalejax.config import Model, Parametrization, Run
from scalejax.data.preparation import prepare
from scalejax.data.shards import Shards
from scalejax.data.tokenizer_json import token_ids
from scalejax.files import read_json, write_json
from scalejax.grids import as_dict
from scalejax.model.hf_import import import_hf
from scalejax.model.parameters import Params
from scalejax.training import checkpoint, distributed
from scalejax.training.segment import RUN_ID, TrainingJob
from scalejax.training.status import check_data, read_status
from scalejax.training.step import Network, init_state, weights_to_evaluate

# Differences in these fields leave every weight its shape and its meaning: longer
# sequences need longer wavelengths.
FREE_FIELDS = ("rope_theta",)


class Source(NamedTuple):
    """Where initial weights come from."""

    folder: Path
    is_run: bool
    """Whether it is the folder of a run; else it is that of a Hugging Face model."""
    weights: str
    """16 hex digits of a hash of its weights."""


def initial_weights(
    job: TrainingJob, folder: Path, parent: Path | None, mesh: jax.sharding.Mesh, shards: Shards
) -> Params | None:
    """Return the weights that `Run.start` names, or None for random ones.

    `shards` are the data of the run. Raises ValueError; see `check_source`,
    `check_tokens_of` and `load_weights`.
    """
    source = check_source(job, folder, parent)
    if source is None:
        return None
    check_tokens_of(source.folder, job.segment.run, shards)
    return load_weights(source, job.segment.run, mesh)


def check_source(job: TrainingJob, folder: Path, parent: Path | None) -> Source | None:
    """Find what `Run.start` names, and note its hash in folder/start.json.

    None for a run with random initial weights. `parent` is the folder of the segment's
    trunk.

    Raises ValueError when there is no such source, or when its weights are not those
    that this run, or its trunk, began from.
    """
    start = job.segment.run.start
    if not start:
        return None
    source = _find(start, job, folder)
    for earlier in (folder, parent):
        if earlier is None or not (earlier / "start.json").exists():
            continue
        weights = read_json(earlier / "start.json").get("weights")
        if weights != source.weights:
            raise ValueError(
                f"{folder} began from the weights of {source.folder} when their hash was "
                f"{weights}; now it is {source.weights}: restore the earlier weights, or train "
                "in another folder (a study: under another version)"
            )
    if distributed.is_main():
        write_json(folder / "start.json", {"start": start, "weights": source.weights})
    return source


def load_weights(source: Source, run: Run, mesh: jax.sharding.Mesh) -> Params:
    """Return the weights of a source on the mesh.

    Those of a run are the ones that it was evaluated with. Raises ValueError, which
    names the fields, when the model or its parametrization is another one.
    """
    shardings = Network.of(run, mesh).param_shardings
    if not source.is_run:
        model, params = import_hf(source.folder)
        _check_model(run, model, Parametrization(), source.folder)
        return jax.device_put(params, shardings)

    other = TrainingJob.read(source.folder).segment
    _check_model(run, other.run.model, other.run.parametrization, source.folder)
    like = checkpoint.abstract(init_state(other.run, mesh))
    # The last checkpoint or none: the one before holds the weights of an earlier step.
    folder = source.folder / "checkpoints"
    restored = checkpoint.restore(folder, like, other.id, step=checkpoint.steps(folder)[-1])
    if restored is None:
        raise checkpoint.CheckpointError(f"{source.folder} has no checkpoint any more")
    return weights_to_evaluate(other.run, restored.state)["raw"]


def check_tokens_of(source: Path, run: Run, shards: Shards) -> None:
    """Raise ValueError when token ids mean other text in `run` than in its source.

    `source` is the folder of a trained run, or of a Hugging Face checkpoint; `shards`
    are the data of `run`.
    """
    if (source / "checkpoints").is_dir():
        _check_tokens_of_run(source, run, shards)
    else:
        _check_tokens_of_checkpoint(source, run, shards)


def _check_tokens_of_run(source: Path, run: Run, shards: Shards) -> None:
    """A tokenizer `bpe:V` is trained on the text: on other text it is another one."""
    trained, status = TrainingJob.read(source).segment.run.data, read_status(source)
    if status is not None and status["data_hash"] == shards.hash:
        return
    ours, theirs = run.data.tokenizer, trained.tokenizer
    if ours == theirs and ours != "own" and not ours.startswith("bpe:"):
        return
    try:
        others = prepare(trained)
        check_data(source, status, others.hash)
    except ValueError as error:
        raise ValueError(
            f"Run.start is {run.start}, but whether its tokenizer {theirs!r} is that of this run, "
            f"{ours!r}, cannot be found out: {error}"
        ) from error
    check_tokenizers(run, shards, others)


def _check_tokens_of_checkpoint(source: Path, run: Run, shards: Shards) -> None:
    """A token of the run must have the same id there; the checkpoint may know more."""
    paths = [source / name for name in ("tokenizer.json", "tokenizer.model")]
    path = next((path for path in paths if path.is_file()), None)
    # Ids without a tokenizer, on either side, are what the user says they are.
    if path is None or shards.manifest["tokenizer"]["hash"] is None:
        return
    theirs = token_ids(path.read_bytes(), path)
    for token, number in token_ids(shards.model, shards.folder).items():
        if theirs.get(token) != number:
            raise ValueError(
                f"Run.start is {run.start}, but its weights know other token ids: {token!r} is "
                f"{number} for {run.data.tokenizer} of {run.data.source}, and "
                f"{theirs.get(token, 'no token')} in {path}; set Data.tokenizer={str(path)!r}"
            )


def check_tokenizers(run: Run, ours: Shards, theirs: Shards) -> None:
    """Raise ValueError when the data of a run and of its source differ in tokenizer."""
    hashes = [shards.manifest["tokenizer"]["hash"] for shards in (ours, theirs)]
    # Ids without a tokenizer are what the user says they are.
    if None in hashes or hashes[0] == hashes[1]:
        return
    model = theirs.folder / "tokenizer.model"
    remedy = f"Data.tokenizer={str(model)!r}" if theirs.model else "Data.tokenizer='byte'"
    raise ValueError(
        f"Run.start is {run.start}, but its weights know other token ids: those of the tokenizer "
        f"{theirs.manifest['tokenizer']['name']} of {theirs.manifest['source']}, which is not "
        f"{run.data.tokenizer} of {run.data.source}; set {remedy}"
    )


def check_path(start: str, path: Path) -> None:
    """Raise ValueError unless `path`, which `Run.start` names, has weights."""
    if not (path / "checkpoints").is_dir() and not any(path.glob("*.safetensors")):
        raise ValueError(
            f"Run.start is {start}, but {path} is neither the folder of a trained run, with "
            "checkpoints, nor that of a Hugging Face model, with *.safetensors; give the path "
            "of such a folder, or, in a study, the id of another of its runs"
        )


def _find(start: str, job: TrainingJob, folder: Path) -> Source:
    """Return the source that `Run.start` names; raises ValueError when it is none."""
    path = Path(start).expanduser()
    if RUN_ID.fullmatch(start) and job.study:
        # folder is STUDY/runs/ID or STUDY/trunks/ID.
        path = folder.parent.parent / "runs" / start
    check_path(start, path)
    if (path / "checkpoints").is_dir():
        if not (path / "DONE").exists():
            raise ValueError(
                f"Run.start is {start}, but the run in {path} is not finished: train it first"
            )
        if read_json(path / "status.json").get("status") == "diverged":
            raise ValueError(f"Run.start is {start}, but the run in {path} has diverged")
        return Source(path, True, checkpoint.fingerprint(path / "checkpoints"))
    files = sorted(path.glob("*.safetensors"))
    digest = hashlib.sha256()
    for file in [path / "config.json", *files]:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return Source(path, False, digest.hexdigest()[:16])


def _check_model(run: Run, model: Model, parametrization: Parametrization, folder: Path) -> None:
    """Raise ValueError when weights of another model cannot be those of the run."""
    pairs = [("Model", as_dict(run.model), as_dict(model))]
    pairs.append(("Parametrization", as_dict(run.parametrization), as_dict(parametrization)))
    differences = [
        f"{owner}.{name} is {ours[name]!r} here and {theirs[name]!r} there"
        for owner, ours, theirs in pairs
        for name in ours.keys() & theirs.keys() - set(FREE_FIELDS)
        if ours[name] != theirs[name]
    ]
    if differences:
        raise ValueError(
            f"Run.start is {run.start}, but {folder} holds the weights of another network: "
            f"{'; '.join(sorted(differences))}; give the run the same ones"
        )
