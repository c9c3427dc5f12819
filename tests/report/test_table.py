from hpcule.report.table import print_results


def lines(capsys, results):
    print_results(results)
    return capsys.readouterr().out.splitlines()


def test_plain_text_of_at_most_a_hundred_columns(capsys, results):
    printed = lines(capsys, results)
    assert max(map(len, printed)) <= 100
    assert not any("\x1b" in line for line in printed)
    assert not any("…" in line for line in printed)


def test_every_set_has_its_row_with_mean_interval_and_distance(capsys, results):
    printed = lines(capsys, results)
    (row,) = [line for line in printed if line.split()[:1] == ["protected"] and "34.7%" in line]
    assert row.split()[1:] == ["34.7%", "29.5%", "to", "39.8%", "−39.8", "34.9%", "97.0%", "3"]
    assert sum("random-noise control" in line for line in printed) == 2


def test_the_verdict_comes_first(capsys, results):
    printed = [line for line in lines(capsys, results) if line.strip()]
    assert printed[0].startswith("The protection held in part")


def test_no_interval_from_one_seed(capsys, make):
    printed = lines(capsys, make.results([make.plain((0.7,), (0.69,), (0.2,))]))
    assert sum("one seed " in line and "%" in line for line in printed) == 3


def test_invalid_is_loud(capsys, make):
    because = "the clean control reached 0.12, chance is 0.10"
    printed = "\n".join(lines(capsys, make.results([make.plain()], status="invalid", invalid_because=because)))
    assert printed.count("INVALID") >= 3
    assert because in " ".join(printed.split())


def test_names_are_not_read_as_markup(capsys, make):
    recipe = make.plain()
    recipe["title"] = "[red]x[/nothing] :smile:"
    assert any("[red]x[/nothing] :smile:" in line for line in lines(capsys, make.results([recipe])))


def test_unchanged_images_have_no_psnr(capsys, make):
    results = make.results([make.plain()])
    results["visibility"]["psnr_db"] = None
    assert any("no image changed" in line for line in lines(capsys, results))
