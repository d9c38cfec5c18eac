from camelbell_core.scaffold import new_bundle


def test_the_page_of_a_run_is_written_where_it_is_wanted(tmp_path, camelbell):
    new_bundle("lumen", "", tmp_path / "characters")
    camelbell("questions", "lumen", "-n", 5, "--workspace", "w")
    done = camelbell("report", "lumen", "--workspace", "w")
    assert (done.returncode, done.stdout) == (0, "w/reports/report.html\n")
    assert camelbell("report", "lumen", "--workspace", "w", "--to", "页.html").stdout == "页.html\n"
    assert (tmp_path / "页.html").read_bytes() == (tmp_path / "w/reports/report.html").read_bytes()
