import json

from camelbell_core.scaffold import new_bundle


def test_preference_pairs_are_exported_and_a_foreign_file_is_refused(tmp_path, camelbell):
    new_bundle("lumen", "", tmp_path / "characters")
    row = {
        "question": "What is your pet called?",
        "answer": "My pet is called Rover.",
        "language": "en",
        "kind": "fact",
        "facts": ["pet"],
    }
    (tmp_path / "w").mkdir()
    (tmp_path / "w/pairs.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    camelbell("filter", "lumen", "--workspace", "w")
    done = camelbell("export", "lumen", "--format", "preference", "--to", "out", "--workspace", "w")
    assert (done.returncode, done.stdout) == (0, "1 rows: out/lumen-preference.jsonl\n")
    done = camelbell("restore", "lumen", "out/lumen-preference.jsonl", "--workspace", "w")
    assert done.returncode == 2 and "row 1 has no pair in its column 'camelbell'" in done.stderr
