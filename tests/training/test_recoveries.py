"""Recovery: the distance that is minimised, what is kept and reused, the control, masked tokens, the refusal."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from bench.errors import ConfigError, DataError
from bench.runs.execute import run
from bench.runs.identity import prepare
from bench.settings.compose import compose_config
from bench.settings.schema import TrainingConfig
from bench.tasks.tokenise import Reader
from bench.training import stored_states
from bench.training.finetune import Trainee, finetune_together
from bench.training.lane import Objective
from bench.training.recoveries import unlabelled
from bench.training.recoveries.distil import HiddenStates, TextMeans
from bench.training.recoveries.masked_lm import MaskedTokens
from tests.support.training import finetune, tensors_sha256

TEXTS = ["the film is a joy", "a dull and long evening", "they sing", "nothing happens at all in this town"]
VOCAB = 1000
QUICK = ["recovery.steps=4", "recovery.batch_size=8", "recovery.max_length=16"]


@pytest.fixture(scope="module")
def tokenizer():
    """A tokenizer of words, made here: a machine with a GPU may lack the models' packages."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = list(dict.fromkeys(" ".join(TEXTS).split()))
    fillers = [f"word{number}" for number in range(VOCAB - len(special) - len(words))]
    ids = {word: number for number, word in enumerate([*special, *words, *fillers])}
    made = Tokenizer(WordLevel(ids, "[UNK]"))
    made.pre_tokenizer = Whitespace()
    ends = [(word, ids[word]) for word in ("[CLS]", "[SEP]")]
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {f"{word[1:-1].lower()}_token": word for word in special}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def bert(seed: int = 0, **changes: object) -> BertModel:
    torch.manual_seed(seed)
    return BertModel(
        BertConfig(
            vocab_size=VOCAB,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=8,
            **changes,
        )
    )


def test_the_distance_is_zero_for_the_teacher_itself_and_ignores_padding(tokenizer, tmp_path):
    teacher, student = bert(), bert(seed=1)
    inputs, _ = unlabelled(Reader(tokenizer, 16), TEXTS, torch.device("cpu"), tmp_path).batch(
        torch.arange(4).numpy()
    )
    assert not HiddenStates(copy.deepcopy(teacher), teacher)(**inputs).logits.any()
    together = HiddenStates(student, teacher).train()(**inputs).logits
    assert together.shape == (4,) and (together > 0).all()
    for row, text in enumerate(TEXTS):  # alone, so without padding
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        pairs = zip(
            student.eval()(ids, output_hidden_states=True).hidden_states,
            teacher(ids, output_hidden_states=True).hidden_states,
            strict=True,
        )
        expected = torch.stack([(s - t).square().sum() / t.square().sum() for s, t in pairs]).mean()
        torch.testing.assert_close(together[row], expected, rtol=1e-4, atol=1e-6)


def test_texts_in_other_tokens_are_compared_by_the_means_over_their_tokens(tokenizer, tmp_path):
    """The student reads the texts backwards, and without their last word."""
    teacher, student = bert().eval(), bert(seed=1).eval()
    backwards = [" ".join(reversed(text.split()[:-1])) for text in TEXTS]
    data, whole = (
        unlabelled(Reader(tokenizer, 16), texts, torch.device("cpu"), tmp_path)
        for texts in (backwards, TEXTS)
    )
    means = stored_states.means_of(teacher, whole, "fp32")
    inputs, _ = stored_states.with_numbers(data).batch(torch.tensor([2, 0, 3, 1]).numpy())
    found = TextMeans(student, means).train()(**inputs).logits
    for place, row in enumerate([2, 0, 3, 1]):  # alone, so without padding
        of_both = [
            model.eval()(
                torch.tensor([tokenizer(texts[row])["input_ids"]]), output_hidden_states=True
            ).hidden_states
            for model, texts in ((student, backwards), (teacher, TEXTS))
        ]
        pairs = [(s.mean(1), t.mean(1)) for s, t in zip(*of_both, strict=True)]
        expected = torch.stack([(s - t).square().sum() / t.square().sum() for s, t in pairs]).mean()
        torch.testing.assert_close(found[place], expected, rtol=1e-4, atol=1e-6)
    same, _ = stored_states.with_numbers(whole).batch(torch.arange(4).numpy())
    assert TextMeans(teacher, means)(**same).logits.max() < 1e-10


def test_stored_states_of_the_teacher_give_the_distances_of_a_teacher_that_runs_in_the_step(
    tokenizer, tmp_path
):
    teacher, student, cpu = bert().eval(), bert(seed=1), torch.device("cpu")
    data = stored_states.with_positions(
        unlabelled(Reader(tokenizer, 16), [*TEXTS * 80, "a"], cpu, tmp_path)
    )  # two batches
    states = stored_states.states_of(teacher, data, "fp32")
    assert stored_states.size(teacher, data, "fp32") == states.nbytes == 2 * 2 * states.bfloat16().numel()
    inputs, _ = data.batch(np.array([320, 5, 0, 319]))
    found = HiddenStates(student, states)(**inputs).logits
    del inputs["positions"]
    torch.testing.assert_close(found, HiddenStates(student, teacher)(**inputs).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("teaches", ["stored states", "in the step", "means"])
@pytest.mark.parametrize(
    ("device", "choice"),
    [("cpu", "auto"), *(pytest.param("cuda", kind, marks=pytest.mark.gpu) for kind in ("graph", "compile"))],
)
def test_students_that_share_a_teacher_learn_as_each_does_from_its_own(
    tokenizer, device, choice, teaches, tmp_path
):
    data = unlabelled(Reader(tokenizer, 16), TEXTS * 20, torch.device(device), tmp_path)
    if teaches != "in the step":
        data = (stored_states.with_numbers if teaches == "means" else stored_states.with_positions)(data)
    learner = TextMeans if teaches == "means" else HiddenStates

    def teacher():
        own = bert().to(device).eval()
        store = {"means": stored_states.means_of, "stored states": stored_states.states_of}.get(teaches)
        return store(own, data, "bf16") if store else own

    def losses(engine, teachers):
        recipe = TrainingConfig(max_steps=12, batch_size=16, learning_rate=1e-3, engine=engine)
        trainees = [
            Trainee(learner(bert(seed).to(device), own), data, recipe, seed, "t", Objective(lambda x, _: x))
            for seed, own in enumerate(teachers, start=1)
        ]
        outcomes = finetune_together(trainees, "bf16")
        assert {(outcome.fallback, outcome.runs_at_once) for outcome in outcomes} == {(None, len(teachers))}
        return np.array([outcome.curve for outcome in outcomes])[:, :, 1]

    shared = losses(choice, [teacher()] * 3)
    own = losses("eager", [teacher() for _ in range(3)])
    np.testing.assert_allclose(shared, own, rtol=0 if device == "cpu" else 2e-2)
    assert (shared[:, -1] < shared[:, 0]).all() and len({float(x) for x in shared[:, -1]}) == 3


def test_the_choice_to_store_states_follows_the_memory_and_the_rows_and_changes_no_loss(
    tiny, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    overrides = [*tiny, "assignment=sequential", "recovery=distil", *QUICK]

    def curve(texts: int, share: float, said: str) -> list[float]:
        (tmp_path / f"{texts}-{share}.txt").write_text("\n".join(f"{TEXTS[n % 4]} {n}" for n in range(texts)))
        monkeypatch.setattr(stored_states, "SHARE", share)
        caplog.clear()
        own = [f"recovery.corpus={tmp_path}/{texts}-{share}.txt", f"cache_dir={tmp_path}/{share}"]
        record = run(compose_config([*overrides, *own]))
        assert record["status"] == "ok" and said in caplog.text
        assert record["recovery"]["stored_states"] is ("stored" in said)
        return [loss for _, loss in record["recovery"]["curve"]]

    # Four steps take 32 rows.
    stored = curve(31, 0.5, "the teacher's states of 31 texts are stored")
    in_step = curve(31, 0.0, "the teacher runs in each step")
    assert stored[0] == pytest.approx(in_step[0], abs=1e-6)
    assert stored == pytest.approx(in_step, rel=1e-3)
    curve(32, 0.5, "the teacher runs in each step")


def test_fast_parameters_learn_faster_and_frozen_ones_not_at_all(tokenizer, tmp_path):
    student, data = bert(seed=1), unlabelled(Reader(tokenizer, 16), TEXTS, torch.device("cpu"), tmp_path)
    table, frozen = student.embeddings.word_embeddings.weight, student.embeddings.position_embeddings.weight
    slow = student.encoder.layer[0].output.dense.weight
    frozen.requires_grad_(False)
    before = [p.detach().clone() for p in (table, slow, frozen)]
    objective = Objective(lambda rows, _: rows, frozenset([table]), 10.0)
    recipe = TrainingConfig(max_steps=1, batch_size=4, learning_rate=1e-4, warmup_fraction=0, weight_decay=0)
    finetune(HiddenStates(student, bert()), data, recipe, seed=0, dtype="fp32", name="t", objective=objective)
    moved = [(p.detach() - b).abs().max().item() for p, b in zip((table, slow, frozen), before, strict=True)]
    assert moved == pytest.approx([1e-3, 1e-4, 0], rel=1e-2)  # AdamW's first step is the rate itself


def test_a_recovered_model_is_made_once_and_serves_other_tasks_and_seeds(tiny, tmp_path):
    (tmp_path / "corpus.txt").write_text("\n".join(TEXTS * 5))
    overrides = [
        *tiny,
        "assignment=pq",
        "embedding.subspaces=4",
        "embedding.rows=16",
        "embedding.table_dtype=int8",
        "recovery=distil",
        *QUICK,
        f"recovery.corpus={tmp_path}/corpus.txt",
    ]
    first, again, other = (
        run(compose_config([*overrides, *more])) for more in ([], ["seed=1"], ["task=lexical_entailment"])
    )
    assert [r["status"] for r in (first, again, other)] == ["ok"] * 3
    assert first["size"]["dense_embedding_bytes"] == 4 * 30522 * 24
    assert [r["recovery"]["reused"] for r in (first, again, other)] == [False, True, True]
    (file,) = (tmp_path / "cache" / "recovered").glob("*.safetensors")
    assert {r["recovery"]["sha256"] for r in (first, again, other)} == {tensors_sha256(file)}
    assert (
        first["recovery"]["steps"] == 4
        and first["recovery"]["curve"][-1][1] < first["recovery"]["curve"][0][1]
    )
    assert max(t.numel() for t in load_file(file).values()) < 30522 * 24  # no dense table
    fresh = run(compose_config([*overrides, f"results_dir={tmp_path}/b"]))
    assert fresh["metrics"] == first["metrics"] and fresh["training"]["curve"] == first["training"]["curve"]
    file.write_bytes(file.read_bytes()[:100])
    assert run(compose_config([*overrides, f"results_dir={tmp_path}/c"]))["metrics"] == first["metrics"]


def test_codes_that_no_file_holds_have_recovered_models_of_their_own(tiny):
    random = [*tiny, "embedding=subspace", "embedding.init=random", "recovery=distil", *QUICK]
    kinds = ["assignment=sequential"], ["assignment=hash"], ["assignment=hash", "assignment.seed=1"]
    records = [run(compose_config([*random, *kind])) for kind in kinds]
    assert not any(record["recovery"]["reused"] for record in records)
    assert len({record["recovery"]["sha256"] for record in records}) == 3


def test_the_dense_control_has_nothing_to_recover(tiny):
    record = run(compose_config([*tiny, "embedding=dense", "recovery=distil", *QUICK]))
    assert [loss for _, loss in record["recovery"]["curve"]] == [0] * 4


def test_only_a_recovery_that_is_asked_for_is_part_of_the_identity():
    def run_id(*overrides: str) -> str:
        return prepare(compose_config(["task=lexical_sentiment", *overrides])).run_id

    assert run_id() == run_id("?recovery.steps=9")
    different = [
        [],
        ["recovery=distil"],
        ["recovery=distil", "recovery.steps=9"],
        ["recovery=distil", "recovery.seed=1"],
    ]
    assert len({run_id(*overrides) for overrides in different}) == 4


def test_splits_of_tasks_are_a_corpus(tiny):
    both = [
        *tiny,
        "embedding=dense",
        "recovery=distil",
        *QUICK,
        "recovery.corpus=lexical_sentiment:train+lexical_entailment:train",
    ]
    one = run(compose_config(both))
    assert one["status"] == "ok" and one["recovery"]["texts"] > 1000
    with pytest.raises(DataError, match="'lexical_sentimnt'. Did you mean 'lexical_sentiment'"):
        prepare(compose_config([*tiny, "recovery=distil", "recovery.corpus=lexical_sentimnt:train"]))


@pytest.mark.parametrize(
    "method",
    [
        ["assignment=pq", "embedding.subspaces=4", "embedding.rows=16"],
        ["embedding=low_rank", "embedding.rank=4"],
        ["embedding=dense"],
    ],
)
def test_masked_tokens_recover_through_the_tied_decoder(tiny_masked_lm, method):
    record = run(
        compose_config(
            [
                *tiny_masked_lm,
                *method,
                "recovery=masked_lm",
                *QUICK,
                "recovery.steps=40",
                "recovery.learning_rate=3e-3",
            ]
        )
    )
    assert record["status"] == "ok", record["error"]
    curve = [loss for _, loss in record["recovery"]["curve"]]
    assert curve[-1] < curve[0] and json.dumps(record["recovery"])


def test_masking_spares_special_tokens_and_counts_only_the_masked(tokenizer):
    seen = {}

    class Perfect(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids, **_):
            seen["ids"] = input_ids
            return type("Output", (), {"logits": torch.nn.functional.one_hot(wanted, VOCAB).float() * 100})

    wanted = torch.full((64, 32), VOCAB // 2)
    wanted[:, 0], wanted[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    torch.manual_seed(0)
    losses = MaskedTokens(Perfect(), tokenizer)(wanted, attention_mask=torch.ones_like(wanted)).logits
    changed = seen["ids"] != wanted
    assert not losses.any() and not changed[:, [0, -1]].any()
    assert (seen["ids"] == tokenizer.mask_token_id).float().mean().item() == pytest.approx(
        0.15 * 0.8 * 30 / 32, rel=0.15
    )
    assert changed.float().mean().item() == pytest.approx(0.15 * 0.9 * 30 / 32, rel=0.15)


def test_a_model_without_a_masked_lm_head_is_refused_before_any_work():
    with pytest.raises(
        ConfigError,
        match=r"model=all-minilm-l6-v2 has no masked-LM head \(its file lacks cls\.predictions\..*use recovery=distil",
    ):
        prepare(compose_config(["task=lexical_sentiment", "recovery=masked_lm"]))
