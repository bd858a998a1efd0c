"""``--eval``: a text and a tokenizer say how far a compiled language model is from its source."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcomp

EXAMPLE = Path(__file__).parents[2] / "examples" / "char_model"
sys.path.insert(0, str(EXAMPLE))

import char_model  # noqa: E402

sys.path.remove(str(EXAMPLE))

tokenizers = pytest.importorskip("tokenizers")

ENCODER = """
<ir_version: 10, opset_import: ["" : 21]>
g (int64[n, t] input_ids, int64[n, t] attention_mask) => (float[n, 32] y) {
    e = Gather<axis=0>(table, input_ids)
    m = Cast<to=1>(attention_mask)
    k = Unsqueeze(m, last)
    w = Mul(e, k)
    axis = Constant<value_ints=[1]>()
    s = ReduceSum<keepdims=0>(w, axis)
    y = MatMul(s, weight)
}"""


def write_tokenizer(letters: str, path: Path) -> None:
    """One token a character."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token=letters[0]))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    made.save(str(path))


@pytest.fixture
def decoder(folder: Path) -> str:
    weights, alphabet = char_model.load()
    onnx.save(char_model.graph(weights), "m.onnx")
    write_tokenizer(alphabet, Path("tokenizer.json"))
    Path("text.txt").write_text(char_model.text()[-20_000:], encoding="utf-8")
    return "m.onnx"


@pytest.fixture
def encoder(folder: Path) -> str:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(ENCODER)
    arrays = {
        "table": rng.normal(size=(100, 32)).astype(np.float32),
        "weight": rng.normal(size=(32, 32)).astype(np.float32),
        "last": np.array([-1]),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()
    )
    onnx.save(model, "e.onnx")
    write_tokenizer("abcdefghij", Path("tokenizer.json"))
    lines = ["".join(rng.choice(list("abcdefghij"), rng.integers(3, 12))) for _ in range(20)]
    Path("text.txt").write_text("\n".join(lines))
    return "e.onnx"


def figures(folder: str = "out") -> dict[str, tuple[float, float]]:
    report = json.loads(Path(folder, "report.json").read_text())
    return {line["metric"]: (line["source"], line["compiled"]) for line in report["accuracy"]}


def test_a_decoder_s_perplexity_and_divergence_are_said(decoder, cli):
    shown = cli("compile", decoder, "-t", "cpu-int4", "--eval", "text.txt", "-o", "out")
    assert shown.code == 0, shown.err
    assert "KL divergence a token on" in shown.out
    before, after = figures()["perplexity"]
    assert 3 < before < 6
    assert before != after
    assert after == pytest.approx(before, rel=0.02)
    # What is said is what both files do on the same windows.
    _, alphabet = char_model.load()
    ids = [alphabet.index(c) for c in Path("text.txt").read_text(encoding="utf-8")]
    starts = np.linspace(0, len(ids) - 65, 128).astype(int)
    windows = np.stack([ids[s : s + 65] for s in starts])
    from qcomp.execute import Session

    def logits(path):
        return Session(path).run({"ids": windows[:, :-1]})["logits"].astype(np.float64)

    def logs(x):
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    p, q = logits("m.onnx"), logits("out/stage0.onnx")
    assert before == pytest.approx(char_model.perplexity(p, windows[:, 1:]), rel=1e-5)
    assert after == pytest.approx(char_model.perplexity(q, windows[:, 1:]), rel=1e-5)
    divergence = (np.exp(logs(p)) * (logs(p) - logs(q))).sum(-1).mean()
    assert figures()["KL divergence a token"][1] == pytest.approx(divergence, rel=1e-4)


def test_embeddings_are_compared_by_cosine_and_rank(encoder, cli):
    shown = cli(
        *("compile", encoder, "-t", "cpu-int4", "--eval", "text.txt"),
        *("--tokenizer", "tokenizer.json", "-o", "out"),
    )
    assert shown.code == 0, shown.err
    found = figures()
    assert 0.98 < found["cosine with the source's embeddings"][1] < 1
    assert 0.95 < found["rank correlation of similarities"][1] <= 1


def test_arrays_are_labels(folder, cli):
    from tests.models import mlp

    Path("m.onnx").write_bytes(mlp((16, 8)).SerializeToString())
    x = np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)
    np.savez("eval.npz", x=x, labels=np.zeros(32, np.int64))
    shown = cli("compile", "m.onnx", "-t", "cpu-int4", "--eval", "eval.npz", "-o", "out")
    assert shown.code == 0, shown.err
    assert "accuracy" in figures()


def test_the_tokenizer_and_the_configuration_go_with_the_model(decoder, cli):
    for name in ("config.json", "generation_config.json", "vocab.txt", "merges.txt"):
        Path(name).write_text(f"content of {name}")
    Path("notes.txt").write_text("not the model's")
    assert cli("compile", decoder, "-t", "cpu-int4", "-o", "out").code == 0
    for name in ("config.json", "generation_config.json", "vocab.txt", "merges.txt"):
        assert Path("out", name).read_text() == f"content of {name}"
    assert Path("out/tokenizer.json").read_bytes() == Path("tokenizer.json").read_bytes()
    assert not Path("out/notes.txt").exists()
    ids = np.zeros((1, 64), np.int64)
    assert qcomp.load("out").run({"ids": ids})["logits"].shape == (1, 64, 103)


def refused(shown) -> str:
    assert shown.code == 2, shown.out
    assert "Traceback" not in shown.err
    return shown.err


def test_a_tokenizer_of_another_model_is_refused(decoder, cli):
    write_tokenizer("".join(map(chr, range(32, 232))), Path("large.json"))
    error = refused(
        cli(
            *("compile", decoder, "-t", "cpu-int4", "--eval", "text.txt"),
            *("--tokenizer", "large.json", "-o", "out"),
        )
    )
    assert "the tokenizer does not fit the model: it has 200 tokens, the model 103" in error
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--eval", "short.txt"), "the text is too short: 5 tokens, at least 17 are needed"),
        (("--eval", "nothing.txt"), "cannot be read"),
        (("--eval", "binary.txt"), "is no text in UTF-8"),
        (("--eval", "text.txt", "--tokenizer", "nothing.json"), "there is no tokenizer"),
        (("--eval", "text.txt", "--tokenizer", "short.txt"), "is no tokenizer"),
        (("--tokenizer", "tokenizer.json"), "a tokenizer is for a text"),
    ],
)
def test_a_text_or_tokenizer_that_cannot_be_used_is_one_clear_error(
    decoder, cli, arguments, message
):
    Path("short.txt").write_text("short")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    shown = cli("compile", decoder, "-t", "cpu-int4", *arguments, "-o", "out")
    assert message in refused(shown)


def test_a_model_without_tokens_is_named_with_its_inputs(folder, cli):
    from tests.models import mlp

    Path("m.onnx").write_bytes(mlp((16, 8)).SerializeToString())
    write_tokenizer("abc", Path("tokenizer.json"))
    Path("text.txt").write_text("abc")
    error = refused(cli("compile", "m.onnx", "-t", "cpu-int4", "--eval", "text.txt", "-o", "out"))
    assert "takes no tokens" in error
    assert "'x'" in error


def test_a_text_without_a_tokenizer_says_what_is_missing(decoder, cli):
    Path("tokenizer.json").unlink()
    error = refused(cli("compile", decoder, "-t", "cpu-int4", "--eval", "text.txt", "-o", "out"))
    assert "--tokenizer" in error


def test_too_few_sentences_are_refused(encoder, cli):
    Path("text.txt").write_text("abc\nbcd\n")
    error = refused(cli("compile", encoder, "-t", "cpu-int4", "--eval", "text.txt", "-o", "out"))
    assert "2 lines, at least 3" in error
