"""Recipes over HTTP: what they choose from the data, what they refuse, and what becomes of them."""

import io
import tarfile

import pytest

from core.errors import InvalidRequest
from core.spec.pipelines.plan import PipelineSpec, plan_stages
from core.spec.pipelines.recipe_facts import DataFacts, RecipeInputs, Surroundings
from core.spec.pipelines.recipes import RECIPES, expand
from tests.api.submitting import ROWS, upload_rows


def upload_documents(http) -> str:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(20):
            text = f"# Part {number}\n\n" + "Words that fill a section. " * 200
            entry = tarfile.TarInfo(f"docs/{number}.md")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    answer = http.post(
        "/datasets", params={"name": "docs", "filename": "docs.tar"}, content=packed.getvalue()
    )
    assert answer.status_code == 201, answer.text
    return "dataset:docs"


def expanded(http, recipe, **inputs):
    return http.post(f"/recipes/{recipe}/expand", json={"inputs": inputs})


def chosen(found) -> dict:
    return {f"{choice['stage']}.{choice['field']}": choice["value"] for choice in found["choices"]}


def test_the_list(http):
    found = http.get("/recipes").json()
    assert [recipe["name"] for recipe in found] == [
        "documents",
        "pairs",
        "gpl",
        "reranker",
        "late_interaction",
    ]


def test_documents_become_stages_with_reasons_and_estimates(http, tiny_model):
    found = expanded(http, "documents", data=upload_documents(http), base_model="o/m").json()
    assert list(found["stages"]) == ["prepare", "baseline", "train", "compare", "passages", "index"]
    train = found["stages"]["train"]
    assert (train["dataset"], train["merge"]) == (
        {"ref": "stage:prepare/dataset", "split": "train"},
        {"base_weight": 0.5},
    )
    assert found["stages"]["compare"]["datasets"][0]["name"] == "made-queries"
    assert all(choice["why"] for choice in found["choices"])
    assert found["stages"]["prepare"]["split"]["by"] == "auto", "passages of a document stay together"
    assert chosen(found)["prepare.chunking.max_characters"] == 1024
    assert found["estimates"].keys() == found["stages"].keys() - {"prepare", "passages"}
    assert any("o/m" in note for note in found["estimates"]["train"]["notes"]), "its size is not known"
    assert found["inputs"]["base_model"] == "o/m"


def test_the_stages_can_be_posted_as_they_are(http):
    stages = expanded(http, "pairs", data=upload_rows(http), base_model="o/m").json()["stages"]
    answer = http.post("/pipelines", json={"stages": stages})
    assert answer.status_code == 201, answer.text
    assert answer.json()["recipe"] is None


def test_a_recipe_is_posted_like_a_pipeline(http):
    body = {"recipe": "pairs", "inputs": {"data": upload_rows(http), "base_model": "o/m"}, "name": "search"}
    made = http.post("/pipelines", json=body)
    assert made.status_code == 201, made.text
    made = made.json()
    assert (made["recipe"], made["name"]) == ("pairs", "search")
    assert list(made["stages"]) == ["prepare", "baseline", "mine", "train", "compare", "index"]
    assert made["stages"]["index"]["needs"] == ["prepare", "compare"]
    assert "prepare.split" in chosen(made)
    assert chosen(http.get(f"/pipelines/{made['id']}").json()) == chosen(made)


@pytest.mark.parametrize("recipe", ["reranker", "late_interaction"])
def test_other_families(http, recipe):
    found = expanded(http, recipe, data=upload_rows(http), base_model="o/m").json()
    family = {"reranker": "cross_encoder"}.get(recipe, recipe)
    assert found["stages"]["train"]["family"] == family
    assert ("index" in found["stages"]) is (recipe == "late_interaction")


@pytest.mark.parametrize(
    ("recipe", "inputs", "sentence"),
    [
        ("documents", {"data": "dataset:pairs"}, "holds rows, not documents: use the recipe pairs"),
        ("pairs", {"data": "dataset:docs"}, "holds documents, not rows: use the recipe documents"),
        ("pairs", {"data": "dataset:pairs", "retriever": "o/m"}, "retriever is only for the recipe reranker"),
        ("pairs", {"data": "dataset:none"}, "Dataset not found: none"),
        ("pairs", {"data": "o/m"}, "is not a dataset reference"),
        ("pairs", {}, "data: Field required"),
    ],
)
def test_what_is_refused(http, recipe, inputs, sentence):
    upload_rows(http)
    upload_documents(http)
    for answer in (
        expanded(http, recipe, **inputs),
        http.post("/pipelines", json={"recipe": recipe, "inputs": inputs}),
    ):
        assert answer.status_code in (404, 422)
        assert sentence in answer.text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"recipe": "pairs"},
        {"inputs": {"data": "dataset:pairs"}},
        {"recipe": "pairs", "inputs": {"data": "dataset:pairs"}, "stages": {"a": {"kind": "train"}}},
        {"recipe": "none", "inputs": {"data": "dataset:pairs"}},
        {"recipe": "pairs", "inputs": {"data": "dataset:pairs"}, "stages": {}},
        {"stages": {}},
    ],
)
def test_stages_or_a_recipe(http, body):
    assert http.post("/pipelines", json=body).status_code == 422


# -- the functions themselves ----------------------------------------------------------------------

INPUTS = RecipeInputs(data="dataset:d", base_model="o/m")


def ids(count: int) -> list[str]:
    return [f"job_{number:04}" for number in range(count)]


@pytest.mark.parametrize("count", [20, 30, 1_000, 50_000, 5_000_000, 80_000_000, None])
@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_size_gives_a_pipeline_that_validates(count, name, device):
    kind = "documents" if name == "documents" else "rows"
    made = expand(name, INPUTS, DataFacts(kind, count, 3000.0), Surroundings(512, device))
    stages = plan_stages(PipelineSpec(stages=made.stages), ids)
    assert {stage.name for stage in stages} == set(made.stages)
    assert {choice.stage for choice in made.choices} <= set(made.stages)
    split = made.stages["prepare"]["split"]
    assert split["test"] > 0
    assert (split["dev"] > 0) is ("evaluation" in made.stages["train"])


def split(count) -> dict:
    made = expand("pairs", INPUTS, DataFacts("rows", count), Surroundings())
    return made.stages["prepare"]["split"]


def test_the_test_is_large_enough_to_show_something_and_small_enough_to_leave_rows():
    queries = {count: round(split(count)["test"] * count) for count in (500, 1_500, 50_000, 5_000_000)}
    assert queries == {500: 150, 1_500: 300, 50_000: 1000, 5_000_000: 2000}
    assert round(split(5_000_000)["dev"] * 5_000_000) == 500


def test_data_with_splits_of_their_own_keep_them():
    facts = DataFacts("rows", 1000, splits={"train": 900, "validation": 50, "test": 50})
    made = expand("pairs", INPUTS, facts, Surroundings())
    assert "prepare" not in made.stages
    assert made.stages["train"]["evaluation"]["datasets"][0]["split"] == "validation"
    assert made.stages["compare"]["datasets"] == [{"ref": "dataset:d", "split": "test", "name": "test"}]
    without_dev = expand(
        "pairs", INPUTS, DataFacts("rows", 1000, splits={"train": 9, "test": 5}), Surroundings()
    )
    assert without_dev.stages["train"]["evaluation"]["holdout"] == 0.05
    plan_stages(PipelineSpec(stages=without_dev.stages), ids)


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (DataFacts("rows", 300, splits={"test": 300}, judged=True), "must have the splits train and test"),
        (DataFacts("rows", judged=True), "must have the splits train and test, and has none"),
        (
            DataFacts("rows", 100, splits={"part1": 50, "part2": 50}),
            "has no split train; it has part1, part2",
        ),
    ],
)
def test_data_that_a_recipe_cannot_split_is_refused_at_once(facts, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        expand("pairs", INPUTS, facts, Surroundings())


def test_a_test_of_the_users_own_is_what_is_measured_on():
    inputs = INPUTS.model_copy(update={"test": "beir:scifact"})
    made = expand("pairs", inputs, DataFacts("rows", 1000), Surroundings())
    assert made.stages["prepare"]["split"]["test"] == 0
    for stage in ("baseline", "compare"):
        assert made.stages[stage]["datasets"] == [{"ref": "beir:scifact", "name": "test"}]


def test_without_a_gpu_the_training_is_kept_short():
    slow, fast = (
        expand("pairs", INPUTS, DataFacts("rows", 1000), Surroundings(512, device)).stages
        for device in ("cpu", "cuda")
    )
    assert slow["mine"]["num_negatives"] < fast["mine"]["num_negatives"]
    assert slow["train"]["epochs"] < fast["train"]["epochs"]
    assert slow["train"]["lengths"] == {"document": 128}
    assert "lengths" not in fast["train"]


def test_a_base_model_of_another_family_is_refused(http, tmp_path, settings):
    from tests.tiny import make_cross_encoder, make_model

    folder = settings.data_dir
    folder.mkdir(exist_ok=True)
    dense = make_model(folder / "dense")
    reranker = make_cross_encoder(folder / "reranker", dense)
    data = upload_rows(http)
    for recipe, model, advice in (
        ("pairs", reranker, "is a cross_encoder model: use the recipe reranker"),
        ("reranker", dense, "is a dense model: use the recipe documents, pairs or gpl"),
    ):
        answer = expanded(http, recipe, data=data, base_model=f"file:{model}")
        assert answer.status_code == 422
        assert advice in answer.json()["detail"]
        assert answer.json()["errors"][0]["path"] == "inputs.base_model"
    assert expanded(http, "reranker", data=data, base_model=f"file:{reranker}").status_code == 200


def test_a_test_of_documents_and_too_few_rows_are_refused(http):
    data, documents = upload_rows(http), upload_documents(http)
    few = upload_rows(http, "few", "".join(ROWS.splitlines(keepends=True)[:5]))
    refused = expanded(http, "pairs", data=data, base_model="o/m", test=documents)
    assert "holds documents: give rows" in refused.json()["detail"]
    assert "has 5 rows: at least 20" in expanded(http, "pairs", data=few, base_model="o/m").json()["detail"]


def test_a_pipeline_of_a_recipe_has_a_name(http):
    inputs = {"data": upload_rows(http), "base_model": "o/m"}
    for more, name in (({}, "pairs"), ({"name": "search"}, "search")):
        made = http.post("/pipelines", json={"recipe": "pairs", "inputs": {**inputs, **more}})
        assert made.json()["name"] == name


LLM = {"endpoint": "http://127.0.0.1:11434/v1", "model": "m", "types": {"question": 1}}


def test_gpl_finds_negatives_twice_and_learns_a_teachers_scores(http):
    documents = upload_documents(http)
    made = expanded(http, "gpl", data=documents, base_model="o/m", cross_encoder="o/teacher", llm=LLM).json()
    assert list(made["stages"]) == [
        *("prepare", "baseline", "mine_words", "mine", "train", "compare", "passages", "index")
    ]
    stages = made["stages"]
    assert stages["prepare"]["queries"]["llm"] == LLM
    assert (stages["mine_words"]["model"], stages["mine"]["model"]) == ("bm25", "o/m")
    teacher = stages["mine"]["filters"]["cross_encoder"]
    assert (teacher["model"], teacher["keep_scores"]) == ("o/teacher", True)
    assert stages["train"]["loss"] == {"name": "margin_mse"}
    answer = http.post("/pipelines", json={"stages": stages})
    assert answer.status_code == 201, answer.text


def test_queries_of_people_judge(http):
    documents = upload_documents(http)
    log = upload_rows(http, "log", '{"query": "where is it", "document": "docs/3.md"}\n')
    made = expanded(http, "documents", data=documents, base_model="o/m", queries=log).json()
    stages = made["stages"]
    assert stages["judged"]["queries"] == {"real": log}
    assert stages["prepare"]["split"]["test"] == 0
    for name in ("baseline", "compare"):
        assert stages[name]["datasets"] == [
            {"ref": "stage:judged/dataset", "split": "test", "name": "real-queries"}
        ]
    answer = http.post("/pipelines", json={"stages": stages})
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("recipe", "inputs", "sentence"),
    [
        ("pairs", {"llm": LLM}, "holds rows, which have queries of their own"),
        ("pairs", {"queries": "dataset:pairs"}, "holds rows, which have queries of their own"),
        ("pairs", {"cross_encoder": "o/m"}, "cross_encoder is only for the recipe gpl"),
        (
            "pairs",
            {"queries": "dataset:pairs", "test": "dataset:pairs"},
            "test and queries exclude each other",
        ),
        ("pairs", {"queries": "dataset:gone"}, "Dataset not found"),
    ],
)
def test_inputs_that_do_not_fit(http, recipe, inputs, sentence):
    data = upload_rows(http)
    answer = expanded(http, recipe, data=data, base_model="o/m", **inputs)
    assert answer.status_code in (404, 422)
    assert sentence in answer.text


@pytest.mark.parametrize(("documents", "epochs"), [(200, 5), (2_000, 2), (100_000, 1)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_few_documents_are_trained_on_more_often_and_measured_as_seldom_as_it_pays(documents, epochs, device):
    inputs = RecipeInputs(data="file:/d", base_model="o/m")
    made = expand("documents", inputs, DataFacts("documents", documents, 800), Surroundings(device=device))
    train, split = made.stages["train"], made.stages["prepare"]["split"]
    assert train["epochs"] == epochs
    pairs = made.pairs * train["epochs"]
    if "evaluation" not in train:
        assert (device, split["dev"]) == ("cpu", 0)
        assert 4 * documents > pairs, "a measurement would have cost little"
        assert any(choice.field == "evaluation" and choice.value is None for choice in made.choices)
        return
    assert split["dev"] > 0
    between = pairs / train["batch_size"] / train["evaluation"]["every_steps"]
    assert between <= 9
    if device == "cpu":
        assert (between + 2) * documents <= pairs * 3 / 2


def test_without_a_test_of_its_own_the_data_keep_a_split_to_measure_on():
    """A set without any split would be a test as a whole."""
    inputs = RecipeInputs(data="file:/d", base_model="o/m", test="file:/t")
    made = expand("documents", inputs, DataFacts("documents", 2_000, 800), Surroundings())
    assert "evaluation" not in made.stages["train"]
    assert made.stages["prepare"]["split"]["dev"] > 0


def test_a_measurement_of_a_reranker_reads_its_candidates_alone():
    inputs = RecipeInputs(data="file:/d", base_model="o/m")
    made = expand("reranker", inputs, DataFacts("documents", 30_000, 800), Surroundings())
    assert made.stages["train"]["evaluation"]["rerank"]["depth"] == 50
    made = expand("pairs", inputs, DataFacts("rows", 30_000, 800), Surroundings())
    assert made.stages["train"]["evaluation"]["every_steps"] > 100


@pytest.mark.parametrize(
    ("queries", "batch", "epochs"), [(100, 8, 5), (1_400, 32, 2), (5_000, 64, 1), (100_000, 64, 1)]
)
def test_few_made_queries_are_trained_on_in_small_batches_and_several_times(queries, batch, epochs):
    facts = DataFacts("documents", 50, 800, queries=queries)
    train = expand("documents", INPUTS, facts, Surroundings()).stages["train"]
    assert (train["batch_size"], train["epochs"]) == (batch, epochs)


def test_queries_of_a_language_model_count_as_pairs():
    llm = {"endpoint": "http://127.0.0.1:1/v1", "model": "m", "per_passage": 3, "sample": 500}
    facts = DataFacts("documents", 1_000, 800, queries=1_000)
    with_llm = RecipeInputs(**{**INPUTS.model_dump(exclude_unset=True), "llm": llm})
    plain, asked = (expand("documents", inputs, facts, Surroundings()).pairs for inputs in (INPUTS, with_llm))
    assert asked - plain == pytest.approx(1_500, rel=0.15)


def test_what_may_be_unreadable_holds_for_every_stage_that_reads_the_data():
    inputs = RecipeInputs(**{**INPUTS.model_dump(exclude_unset=True), "max_reject_share": 0.2})
    stages = expand("documents", inputs, DataFacts("documents", 1_000, 800), Surroundings()).stages
    shares = {name: stage.get("max_reject_share") for name, stage in stages.items()}
    assert shares["prepare"] == shares["passages"] == 0.2
    assert shares["compare"] is None


def test_queries_of_people_are_checked_before_anything_else():
    inputs = RecipeInputs(**{**INPUTS.model_dump(exclude_unset=True), "queries": "file:/log.csv"})
    stages = expand("documents", inputs, DataFacts("documents", 1_000, 800), Surroundings()).stages
    assert stages["prepare"]["depends_on"] == ["stage:judged"]
