"""BM25 in any script, and where there is nothing to count."""

import json
import unicodedata

import bm25s
import numpy as np
import pytest

from core.data.prepared.negatives import _by_words
from core.data.rows.words import words_of
from core.data.sources.retrieval import read_retrieval
from core.ranking.bm25 import WordIndex, best_of
from tests.conftest import SHARED


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The Cats' don't_care, x 42!", ["the", "cats", "don", "t_care", "42"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー", "東京", "京タ", "タワ", "ワー"]),
        ("猫", ["猫"]),
        ("GPT-4を使う", ["を", "使", "う", "を使", "使う", "gpt"]),
        ("한국 음식", ["한", "국", "한국", "음", "식", "음식"]),
        (unicodedata.normalize("NFD", "한국"), ["한", "국", "한국"]),
        ("ＡＢＣ株", ["株", "abc"]),
        ("ｶﾀ", ["カ", "タ", "カタ"]),
        ("กัน", ["กั", "น", "กัน"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("cafe\u0301", ["café"]),
        ("C", ["c"]),
        ("a b c", ["a", "b", "c"]),
        ("the C", ["the"]),
        ("→ ?!", ["→", "?!"]),
        ("\t \n", []),
        ("", []),
    ],
)
def test_tokens(text, tokens):
    assert words_of(text) == tokens


@pytest.mark.parametrize(
    ("texts", "query", "first"),
    [
        pytest.param(["我喜欢猫和狗", "今天天气很好", "股票市场下跌"], "天气", 1, id="chinese"),
        pytest.param(["黒い猫が寝ている", "犬が公園を走る"], "猫", 0, id="japanese_one_character"),
        pytest.param(["東京タワーの高さ", "京都の古い寺"], "京都", 1, id="japanese"),
        pytest.param(["한국음식은맵다", "날씨가 좋다"], "음식", 0, id="korean_inside_a_word"),
        pytest.param(["แมวดำนอนหลับ", "ตลาดหุ้นตก"], "ตลาดหุ้น", 1, id="thai"),
        pytest.param(["ភាសាខ្មែរ", "ទីផ្សារ"], "ទីផ្សារ", 1, id="khmer"),
        pytest.param(["the GPU is fast", "显卡 GPU 很快", "天气"], "显卡", 1, id="mixed_by_script"),
        pytest.param(["the GPU is fast", "天气"], "gpu 速度", 0, id="mixed_by_word"),
        pytest.param(["हिन्दी भाषा", "मराठी भाषा"], "मराठी", 1, id="marks_inside_words"),
        pytest.param(["a", "b", "c"], "b", 1, id="single_letters"),
        pytest.param(["!!!", "???"], "???", 1, id="punctuation"),
    ],
)
def test_a_query_finds_its_text_first(texts, query, first):
    scores = WordIndex(texts).scores(query)
    assert best_of(scores, 10)[0] == first


@pytest.mark.parametrize("texts", [[], ["", ""], ["   "], ["", "river"]], ids=json.dumps)
@pytest.mark.parametrize("query", ["", " ", "?", "river", "川", "a"])
def test_nothing_in_common_is_an_empty_ranking(texts, query):
    scores = WordIndex(texts).scores(query)
    assert scores.shape == (len(texts),)
    assert best_of(scores, 5).tolist() == ([1] if query in texts and query == "river" else [])


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        pytest.param(["今天天气很好", "明天天气不好", "股票市场"], [{0, 1}, {0, 1}, {2}], id="chinese"),
        pytest.param(["", " ", ""], [set(), set(), set()], id="blank"),
        pytest.param(["?", "!", "?"], [{0, 2}, {1}, {0, 2}], id="punctuation"),
    ],
)
def test_prepared_negatives_are_found_in_every_script(texts, found):
    numbers = np.arange(len(texts))

    def of(some):
        return [texts[number] for number in some]

    ranked = _by_words(numbers, numbers, numbers, len(texts), of, of, lambda: None)
    assert [{number for number in row if number >= 0} for row in ranked.tolist()] == found


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not beside the checkout")
@pytest.mark.parametrize("name", ["scifact", "cranfield"])
def test_english_scores_are_those_of_bm25s_own_tokens(name):
    dataset = read_retrieval(SHARED / name, "test")
    texts = list(dataset.corpus.values())
    ours, theirs = WordIndex(texts), bm25s.BM25(method="lucene")
    theirs.index(bm25s.tokenize(texts, stopwords=None, show_progress=False), show_progress=False)
    for query in list(dataset.queries.values())[:50]:
        [tokens] = bm25s.tokenize(query, stopwords=None, show_progress=False, return_ids=False)
        known = [token for token in tokens if token in theirs.vocab_dict]
        np.testing.assert_array_equal(ours.scores(query), theirs.get_scores(known))
