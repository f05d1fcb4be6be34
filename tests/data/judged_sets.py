"""Writes judged sets in each of their forms."""

import json
from pathlib import Path


def write_set(folder: Path, corpus, queries, qrels, split: str = "test", form: str = "beir") -> Path:
    """A judged set. Corpus and queries are (id, text) pairs, in BEIR's form also (id, title, text)."""
    folder.mkdir(parents=True, exist_ok=True)
    if form == "beir":
        lines = [{"_id": row[0], "title": row[1] if len(row) == 3 else "", "text": row[-1]} for row in corpus]
        (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        asked = "".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in queries)
        (folder / "queries.jsonl").write_text(asked)
        (folder / "qrels").mkdir(exist_ok=True)
        judged = "".join(f"{query}\t{document}\t{grade}\n" for query, document, grade in qrels)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    elif form == "msmarco":
        (folder / "collection.tsv").write_text("".join(f"{row[0]}\t{row[-1]}\n" for row in corpus))
        (folder / f"queries.{split}.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in queries))
        judged = "".join(f"{query}\t0\t{document}\t{grade}\n" for query, document, grade in qrels)
        (folder / f"qrels.{split}.tsv").write_text(judged)
    else:
        tagged = (f"<DOC>\n<DOCNO>{r[0]}</DOCNO>\n<TEXT>{r[-1]}</TEXT>\n</DOC>\n" for r in corpus)
        (folder / "docs.trec").write_text("".join(tagged))
        topics = (f"<top>\n<num> Number: {name}\n<title> {text}\n</top>\n" for name, text in queries)
        (folder / "topics.trec").write_text("".join(topics))
        judged = "".join(f"{query} 0 {document} {grade}\n" for query, document, grade in qrels)
        (folder / "qrels.txt").write_text(judged)
    return folder
