"""Parameter counts against published sizes (mirrors counts in scalejax/model/transformer.py)."""

import pytest

from scalejax.config import Model
from scalejax.model.transformer import counts
from tests import published


def sized(
    *, width: int, depth: int, heads: int, mlp_width: int, vocabulary: int, tied: bool = False
) -> Model:
    return Model(
        width=width,
        depth=depth,
        heads=heads,
        kv_heads=heads,
        head_size=width // heads,
        mlp_width=mlp_width,
        vocabulary=vocabulary,
        tied=tied,
    )


HAEGELE = {
    (384, 8, 6): 33.5,
    (512, 8, 8): 53.0,
    (512, 10, 8): 59.8,
    (640, 12, 10): 93.1,
    (768, 12, 12): 123.5,
    (768, 16, 12): 151.8,
    (896, 12, 14): 166.1,
    (768, 24, 12): 208.5,
    (1024, 24, 16): 359.7,
}


@pytest.mark.parametrize(("shape", "millions"), HAEGELE.items())
def test_tied_counts_are_those_of_haegele_2024(shape, millions):
    width, depth, heads = shape
    mlp_width = 256 * -(-8 * width // (3 * 256))
    model = sized(
        width=width, depth=depth, heads=heads, mlp_width=mlp_width, vocabulary=50304, tied=True
    )
    norms = (2 * depth + 1) * width
    assert counts(model).params - norms == counts(model).params_with_head
    assert counts(model).params_with_head / 1e6 == pytest.approx(
        millions, abs=0.1
    )  # some rounded, some truncated


@pytest.mark.parametrize(
    ("width", "depth", "heads"),
    [(96, 8, 4), (512, 8, 4), (576, 24, 8), (1024, 24, 8), (2048, 24, 16)],
)
def test_all_params_follow_gadre_2024(width, depth, heads):
    mlp_width, vocabulary = 256 * -(-8 * width // (3 * 256)), 50432
    model = sized(width=width, depth=depth, heads=heads, mlp_width=mlp_width, vocabulary=vocabulary)
    expected = (
        depth * width * (4 * width + 3 * mlp_width)
        + 2 * vocabulary * width
        + (2 * depth + 1) * width
    )
    assert counts(model).params == expected
    assert counts(model).params_non_embedding == depth * width * (4 * width + 3 * mlp_width)


def test_grouped_queries_and_qk_norm_are_counted():
    model = Model(
        width=64,
        depth=3,
        heads=8,
        kv_heads=2,
        head_size=16,
        mlp_width=176,
        vocabulary=100,
        qk_norm=True,
    )
    attention, mlp = 64 * 16 * (8 + 2 + 2 + 8), 3 * 64 * 176
    assert counts(model).params_non_embedding == 3 * (attention + mlp)
    assert counts(model).params_with_head == 3 * (attention + mlp) + 64 * 100
    assert counts(model).params == 3 * (attention + mlp) + 2 * 64 * 100 + 7 * 64 + 3 * 2 * 16


@pytest.mark.replication
def test_counts_are_those_of_the_16_architectures_of_porian_2024():
    rows = published.rows("porian2024/architectures.csv")
    for row in rows:
        width = int(row["width"])
        model = sized(
            width=width,
            depth=int(row["depth"]),
            heads=4,
            mlp_width=int(row["d_ff"]),
            vocabulary=50432,
        )
        found = counts(model)
        assert (found.params_with_head, found.params_non_embedding) == (
            int(row["N"]),
            int(row["N_no_head"]),
        )
    assert len(rows) == 16


@pytest.mark.replication
def test_counts_are_those_of_the_six_architectures_of_gadre_2024():
    sizes = {
        (
            int(r["hidden_dim"]),
            int(r["n_layers"]),
            int(r["n_heads"]),
            int(r["vocab_size"]),
            int(r["N"]),
        )
        for r in published.rows("gadre2024/models.csv")
    }
    for width, depth, heads, vocabulary, params in sizes:
        mlp_width = 256 * -(-8 * width // (3 * 256))
        model = sized(
            width=width, depth=depth, heads=heads, mlp_width=mlp_width, vocabulary=vocabulary
        )
        assert counts(model).params == params
    assert len(sizes) == 6
