"""``reason-train``: flags in, a model in final/ out."""

import json

import pytest
from sentence_transformers import SentenceTransformer

from core.cli.prepare import main as prepare_main
from core.cli.train import _parser, main, output_folder, to_spec
from core.errors import InvalidRequest
from core.spec import parse_spec
from tests.tiny import WORDS


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def spec_of(pairs_file, *flags):
    return parse_spec(to_spec(_parser().parse_args(["--dataset_path", str(pairs_file), *flags])))


def test_flags_become_a_spec(pairs_file):
    flags = """
        --epochs 2 --lr 3e-4 --batch_size 16 --grad_accum_steps 2 --grad_checkpoint --seed 7
        --document_length 128 --query_length 32 --mini_batch_size 4 --save_steps 5 --logging_steps 2
        --no-bf16 --cpu --lora --lora_r 4 --lora_alpha 8 --lora_dropout 0 --num_workers 0
        --lora_target_modules query,value --optimizer_8bit --sample --sample_size 20
        --eval_holdout 0.25 --length_percentile 0.9 --no-gather --length_sample 100
    """
    found = spec_of(pairs_file, *flags.split())
    assert found.base_model == "Qwen/Qwen3-Embedding-0.6B"
    assert (found.epochs, found.learning_rate, found.batch_size, found.seed) == (2, 3e-4, 16, 7)
    assert (found.gradient_accumulation_steps, found.gradient_checkpointing) == (2, True)
    assert (found.lengths.query, found.lengths.document, found.lengths.percentile) == (32, 128, 0.9)
    assert (found.micro_batch_size, found.micro_batch_tokens, found.loss.cached) == (4, "auto", True)
    assert found.lengths.sample == 100
    assert (found.checkpoint.every_steps, found.logging_steps) == (5, 2)
    assert (found.precision, found.resources.gpus, found.data_loader_workers) == ("fp32", 0, 0)
    assert found.lora is not None
    assert (found.lora.r, found.lora.alpha, found.lora.dropout) == (4, 8, 0)
    assert found.lora.target_modules == ["query", "value"]
    assert (found.optimizer, found.sample, found.evaluation.holdout) == ("adamw_8bit", 20, 0.25)


def test_more_flags_become_a_spec(pairs_file):
    flags = """
        --max_steps 9 --compile --quantization int4 --use_lora --warmup_ratio 0.2 --weight_decay 0.1
        --temperature 0.02 --remine --mining_model a/miner --family dense
    """
    found = spec_of(pairs_file, *flags.split(), "--prompt_query", "query: ", "--prompt_document", "")
    assert (found.max_steps, found.compile, found.quantization) == (9, True, "int4")
    assert (found.warmup_ratio, found.weight_decay, found.loss.temperature) == (0.2, 0.1, 0.02)
    assert (found.prompts.query, found.prompts.document) == ("query: ", "")
    assert found.remine is not None
    assert found.mine is not None
    assert (found.mine.model, found.mine.device) == ("a/miner", "cpu")
    usual = spec_of(pairs_file)
    assert (usual.mine, usual.remine, usual.max_steps, usual.prompts.query) == (None, None, None, None)
    assert usual.loss.temperature == 0.05
    # Of each family its own.
    assert spec_of(pairs_file, "--family", "late_interaction").loss.temperature == 1.0


def test_processes_share_batches_and_the_model(pairs_file):
    usual, asked = spec_of(pairs_file), spec_of(pairs_file, "--gpus", "4", "--fsdp", "--offload")
    assert (usual.sharding, usual.offload) == ("none", False)
    assert (asked.sharding, asked.offload, asked.resources.gpus) == ("fsdp", True, 4)


def test_cpu_and_gpus_exclude_each_other(pairs_file, capsys):
    assert main(["--dataset_path", str(pairs_file), "--cpu", "--gpus", "2"]) == 2
    assert "use --processes to train with several processes" in capsys.readouterr().err


@pytest.mark.parametrize(("processes", "said"), [("0", "1 to 64"), ("65", "1 to 64")])
def test_a_number_of_processes_that_cannot_be(pairs_file, processes, said, tmp_path, capsys):
    flags = ["--cpu", "--processes", processes, "--output_dir", str(tmp_path / "out")]
    assert main(["--dataset_path", str(pairs_file), "--base_model", str(tmp_path), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_smoke_run_has_a_few_logged_steps(pairs_file):
    found = spec_of(pairs_file, "--action", "smoke_steps")
    assert (found.max_steps, found.logging_steps) == (5, 1)
    assert spec_of(pairs_file, "--action", "smoke_steps", "--max_steps", "2").max_steps == 2


@pytest.mark.parametrize(
    ("flags", "batch_size", "accumulation"),
    [
        (["--gpus", "4"], 64, 1),
        (["--gpus", "4", "--gather"], 64, 1),
        (["--gpus", "4", "--no-gather"], 16, 4),
        (["--gpus", "2", "--no-gather", "--grad_accum_steps", "3"], 32, 6),
        (["--gpus", "1", "--no-gather"], 64, 1),
        (["--no-gather"], 64, 1),
        (["--cpu", "--no-gather"], 64, 1),
        (["--cpu", "--no-gather", "--processes", "2"], 32, 2),
        (["--processes", "2"], 64, 1),
    ],
)
def test_without_gathering_each_gpu_ranks_its_own_share(pairs_file, flags, batch_size, accumulation):
    found = spec_of(pairs_file, *flags)
    assert (found.batch_size, found.gradient_accumulation_steps) == (batch_size, accumulation)


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--batchsize", "--batch_size"),
        ("--batch-size=3", "--batch_size"),
        ("--learning_rates", None),
        ("--lora_alph", "--lora_alpha"),
        ("--no_gather", "--no-gather"),
        ("--max_step", "--max_steps"),
    ],
)
def test_an_unknown_flag_names_the_nearest(pairs_file, flag, nearest, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--dataset_path", str(pairs_file), flag])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert f"unrecognized arguments: {flag.partition('=')[0]}" in told
    if nearest:
        assert f"did you mean {nearest}?" in told


def test_reason_prepare_names_the_nearest_flag_too(capsys):
    with pytest.raises(SystemExit):
        prepare_main(["--reason_ir", "x"])
    assert "did you mean --reasonir?" in capsys.readouterr().err


OLD_LINES = """
--auto_lengths --dry_run
--cpu --auto_lengths --sample --sample_size 64 --epochs 1 --batch_size 2 --mini_batch_size 1 --num_workers 0
--auto_lengths --sample --sample_size 2048 --epochs 1 --batch_size 64 --mini_batch_size 1 --output_dir my/qwen
--sample --sample_size 50 --epochs 1 --batch_size 8 --mini_batch_size 4 --num_workers 0 --no-bf16 --cpu
--auto_lengths --prune_embeddings --pool_factor 2.0 --epochs 1 --batch_size 2 --mini_batch_size 1
--action smoke_steps --use_lora --lora_r 8 --lora_alpha 16 --cpu
"""


@pytest.mark.parametrize("line", OLD_LINES.strip().splitlines())
def test_the_old_command_lines_run_as_they_stand(line, tiny_model, tmp_path, capsys):
    """Those of the documents that the project grew from, with a local model and local rows."""
    rows = tmp_path / "rows.jsonl"
    lines = [
        {"query": f"what is {word}", "positive": f"{word} is {number}"} for number, word in enumerate(WORDS)
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in lines))
    flags = [*line.split(), "--dataset_path", str(rows), "--base_model", str(tiny_model)]
    assert main(flags) == 0, capsys.readouterr()
    out = output_folder(_parser().parse_args(flags))
    assert (out / "final").exists() == ("--dry_run" not in flags)


def test_flags_of_pruning(pairs_file):
    found = spec_of(
        pairs_file, "--prune_tokens", "--prune_strategy", "threshold", "--prune_keep_ratio", "0.5"
    )
    assert found.family == "dense"
    assert found.prune_tokens is not None
    assert (found.prune_tokens.strategy, found.prune_tokens.keep_ratio) == ("threshold", 0.5)
    assert (found.prune_tokens.min_tokens, found.prune_tokens.seed) == (16, 42)
    assert found.prune_embeddings is None
    found = spec_of(pairs_file, "--prune_embeddings", "--pool_factor", "3", "--protected_tokens", "1")
    assert found.family == "late_interaction"
    assert found.prune_embeddings is not None
    assert found.prune_embeddings.model_dump() == {
        "strategy": "hierarchical",
        "pool_factor": 3.0,
        "keep_ratio": 0.6,
        "protected_tokens": 1,
    }
    assert spec_of(pairs_file, "--family", "cross_encoder").loss.name == "bce"


@pytest.mark.parametrize(
    ("flags", "precision"),
    [([], "auto"), (["--bf16"], "bf16"), (["--fp16"], "fp16"), (["--no-bf16"], "fp32")],
)
def test_precision(pairs_file, flags, precision):
    assert spec_of(pairs_file, *flags).precision == precision


def test_auto_lengths_win(pairs_file):
    found = spec_of(pairs_file, "--auto_lengths", "--document_length", "128")
    assert (found.lengths.query, found.lengths.document) == ("auto", "auto")
    assert spec_of(pairs_file, "--document_length", "128").lengths.document == 128


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--pool_factor", "4.0"], "--prune_embeddings"),
        (["--lora_r", "4"], "no effect without --lora"),
        (["--bf16", "--fp16"], "--fp16"),
        (["--dataset_path", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(pairs_file, flags, named, capsys):
    with pytest.raises(InvalidRequest):
        spec_of(pairs_file, *flags)
    assert main(["--dataset_path", str(pairs_file), *flags]) == 2
    assert named in capsys.readouterr().err


def test_folders_are_named_by_model_and_run():
    def folder(*flags):
        return str(output_folder(_parser().parse_args(flags)))

    assert folder("--dataset_path", "x/pairs.jsonl.gz") == (
        "data/output/Qwen3-Embedding-0.6B/Qwen3-Embedding-0.6B-pairs"
    )
    assert folder("--run_name", "first", "--base_model", "a/b") == "data/output/b/first"
    assert folder("--output_dir", "/somewhere/else") == "/somewhere/else"


def test_a_training_by_flags(tiny_model, pairs_file, tmp_path, capsys):
    flags = ["--dataset_path", str(pairs_file), "--base_model", str(tiny_model), "--cpu"]
    flags += ["--batch_size", "8", "--lr", "2e-3", "--run_name", "one", "--eval_holdout", "0.2"]
    assert main([*flags, "--dry_run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told["outputs"]) == {"report"}
    assert told["metrics"]["estimate"]["memory"]["total"] > 0
    assert main(flags) == 0
    out = tmp_path / "data" / "output" / tiny_model.name / "one"
    model = SentenceTransformer(str(out / "final"))
    assert model.encode(["river"]).shape == (1, 32)
    result = json.loads((out / "result.json").read_text())
    assert set(result["metrics"]["finetuned"]) == {"pairs-holdout"}
    assert main([*flags, "--dry_run", "--output_dir", str(out)]) == 2  # nor by a dry run
    assert (out / "final" / "model.safetensors").exists()
    capsys.readouterr()
    assert main(flags) == 2  # a finished job is not done over
    assert "--overwrite" in capsys.readouterr().err
