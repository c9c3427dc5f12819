import copy
import json
import re
import stat
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from hpcule.config.errors import StoreError
from hpcule.evaluation.pictures import Pictures
from hpcule.report.protection import mixtures, render, write_report
from hpcule.report.sizes import size_charts

VOID = {"meta", "img", "br", "link", "hr", "input"}
HOSTILE = "<script>alert(1)</script>\"' onerror=x {{ 7*7 }} & ü"


class Page(HTMLParser):
    """Elements in order, with a check that every one is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]


def test_the_page_parses_and_is_private(results, pictures, tmp_path):
    path = tmp_path / "report.html"
    write_report(results, pictures, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    page = Page(path.read_text(encoding="utf-8"))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1


def test_an_older_report_is_replaced_and_becomes_private(results, pictures, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    path.chmod(0o644)
    write_report(results, pictures, path)
    assert path.read_text().startswith("<!doctype html>")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_is_not_there_is_our_own_error(results, pictures, tmp_path):
    with pytest.raises(StoreError, match=r"report\.html"):
        write_report(results, pictures, tmp_path / "missing" / "report.html")


def test_nothing_is_fetched_and_nothing_runs(results, pictures):
    text = render(results, pictures)
    page = Page(text)
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset")
    ]
    assert addresses
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert not re.search(r"url\(|@import|https?://", text)
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("iframe")
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def test_every_chart_is_well_formed_and_described(results, pictures):
    charts = re.findall(r"<svg.*?</svg>", render(results, pictures), flags=re.DOTALL)
    assert len(charts) == 2 + 2 * 2
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert root.find("title").text
        assert root.find("desc").text


def test_bars_stand_for_the_means(results, pictures):
    charts = re.findall(r"<svg.*?</svg>", render(results, pictures), flags=re.DOTALL)
    for recipe, chart in zip(results["recipes"], charts, strict=False):
        heights = [
            float(node.get("height"))
            for node in ElementTree.fromstring(chart).iter("rect")
            if node.get("class").startswith("bar ")
        ]
        means = [entry["mean"] for entry in recipe["sets"]]
        assert heights == pytest.approx([mean * heights[0] / means[0] for mean in means], abs=0.02)


def test_curves_show_seeds_and_their_mean(results, pictures):
    charts = re.findall(r"<svg.*?</svg>", render(results, pictures), flags=re.DOTALL)[2:]
    for chart in charts:
        classes = [node.get("class").split() for node in ElementTree.fromstring(chart).iter("polyline")]
        assert len(classes) == 3 * (3 + 1)
        assert sum("mean" in found for found in classes) == 3


def test_the_mean_curve_is_the_mean(make, pictures):
    recipe = make.plain()
    for seed, victim in enumerate(recipe["sets"][0]["seeds"]):
        # Curves of unequal length: the mean ends where the shortest does.
        victim["curve"] = [{"epoch": e, "train": 0.5, "test": 0.1 * e + 0.01 * seed} for e in range(1, 4 + seed)]
    charts = re.findall(r"<svg.*?</svg>", render(make.results([recipe]), pictures), flags=re.DOTALL)
    (mean,) = [
        node.get("points").split()
        for node in ElementTree.fromstring(charts[1]).iter("polyline")
        if node.get("class") == "curve clean mean"
    ]
    heights = [float(point.split(",")[1]) for point in mean]
    top, bottom = 22, 218
    assert heights == pytest.approx([bottom - (bottom - top) * value for value in (0.11, 0.21, 0.31)], abs=0.01)


def test_every_victim_has_a_row(results, pictures):
    text = Page(render(results, pictures)).text
    for recipe in results["recipes"]:
        for entry in recipe["sets"]:
            for victim in entry["seeds"]:
                row = f"{entry['title']} {victim['seed']} {100 * victim['last']:.1f}% {100 * victim['best']:.1f}%"
                assert f"{row} {victim['best_epoch']}" in text


def test_pictures_are_named_and_explained(results, pictures):
    page = Page(render(results, pictures))
    images = page.all("img")
    assert len(images) == 3 * 8
    assert images[0]["alt"] == "airplane, clean"
    assert images[1]["alt"] == "airplane, perturbation times 15"
    assert "shown 15 times as strong" in page.text
    assert "image-rendering: pixelated" in render(results, pictures)


def test_one_picture_is_enough(results, pictures):
    one = Pictures(pictures.clean[:1], pictures.delta[:1], pictures.protected[:1], pictures.names[:1])
    assert len(Page(render(results, one)).all("img")) == 3


def test_large_pictures_say_that_they_are_thinned(results):
    clean = np.zeros((2, 1, 600, 400), np.uint8)
    text = Page(render(results, Pictures(clean, clean.astype(np.int8), clean, ["a", "b"]))).text
    assert "one of every 3 × 3 pixels" in text


def test_hostile_names_stay_text(results, pictures):
    results["data"]["class_names"][0] = results["data"]["name"] = HOSTILE
    results["recipes"][0]["title"] = results["recipes"][0]["sets"][0]["title"] = HOSTILE
    results["protection"]["settings"] = {"note": HOSTILE}
    text = render(results, Pictures(pictures.clean, pictures.delta, pictures.protected, [HOSTILE] * 8))
    page = Page(text)
    assert not page.all("script")
    assert "<script" not in text
    assert page.all("img")[0]["alt"] == f"{HOSTILE}, clean"
    assert " ".join(HOSTILE.split()) in page.text
    for chart in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ElementTree.fromstring(chart)


def test_one_seed_has_no_interval(make, pictures):
    results = make.results([make.plain((0.7,), (0.69,), (0.2,))])
    text = render(results, pictures)
    assert 'class="whisker"' not in text
    assert text.count('<td class="n">one seed</td>') == 3


def test_invalid_is_loud(make, pictures):
    because = "the clean control reached 0.12, chance is 0.10"
    page = Page(render(make.results([make.plain()], status="invalid", invalid_because=because), pictures))
    assert page.text.startswith("INVALID: Protection report")
    assert sum("alarm" in attributes.get("class", "") for attributes in page.all("p")) == 2
    assert page.text.count(because) >= 3
    assert "protection held" not in page.text


def test_a_sound_run_has_no_alarm(results, pictures):
    page = Page(render(results, pictures))
    assert not any("alarm" in attributes.get("class", "") for attributes in page.all("p"))
    assert "INVALID" not in page.text
    assert "Reduced settings" not in page.text


def test_reduced_runs_say_so(make, pictures):
    assert "Reduced settings." in Page(render(make.results([make.plain()], reduced=True), pictures)).text


def test_settings_and_versions_are_there(results, pictures):
    page = Page(render(results, pictures))
    assert "hpcule 0.1.0, Python 3.11.2, torch 2.13.0." in page.text
    assert "betas: - 0.9 - 0.999" in page.text
    assert len(page.all("details")) == 1 + 2


def test_the_secret_is_named_at_both_ends(results, pictures):
    text = Page(render(results, pictures)).text
    assert len(re.findall("Keep this report private: it shows parts of the perturbation", text)) == 2


def test_results_from_a_file_make_the_same_page(results, pictures):
    results["protection"]["settings"]["betas"] = [0.9, 0.999]
    assert render(json.loads(json.dumps(results)), pictures) == render(results, pictures)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"norm": "l2", "epsilon": 332.6}, "332.6 levels the largest Euclidean norm of the change"),
        ({"norm": "linf", "epsilon": 8.0}, "8 of 255 levels the largest change of any value of a sample"),
        ({"unit": "cluster", "groups": 10}, "cluster 10 of them"),
    ],
)
def test_key_facts(results, pictures, change, expected):
    results["protection"] |= change
    assert expected in Page(render(results, pictures)).text


def test_many_classes_are_cut_short(results, pictures):
    results["data"] |= {"classes": 1000, "class_names": [f"class {k}" for k in range(1000)]}
    text = Page(render(results, pictures)).text
    assert "class 11 and 988 more" in text
    assert "class 12" not in text


def test_unchanged_images_have_no_psnr(results, pictures):
    results["visibility"]["psnr_db"] = None
    assert "none changed" in Page(render(results, pictures)).text


def test_recipes_at_a_glance_tell_what_is_left_of_their_ceilings(make, pictures):
    text = render(make.results([make.plain(), make.cropped(), make.mixed()]), pictures)
    (table,) = re.findall(r'<table class="numbers heat">.*?</table>', text, flags=re.DOTALL)
    rows = re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)[1:]
    assert len(rows) == 2
    # (34.7 - 10) / (74.5 - 10), in the worst row.
    assert 'class="worst"' in rows[1]
    assert '<td class="n">38%</td>' in rows[1]
    assert "worst" not in rows[0]
    assert render(make.results([make.plain()]), pictures).count("numbers heat") == 0


def test_a_mixture_shows_its_clean_part(make, pictures):
    text = render(make.results([make.plain(), make.mixed()]), pictures)
    assert "clean part alone" in text
    assert "the accuracy of training on the clean ones alone (59.0%)" in text


def test_the_structure_of_the_perturbation_stands_beside_that_of_clean_samples(results, pictures):
    text = render(results, pictures)
    for number in ("99.8%", "35.1%", "64.4%", "99.4% and 99.7%", "34.9% and 43.2%"):
        assert number in text
    without = {name: value for name, value in results.items() if name != "structure"}
    assert "What the perturbation reveals" in text
    assert "What the perturbation reveals" not in render(without, pictures)


def test_what_victims_know_beside_what_they_name_has_a_table(make, pictures):
    recipe = make.with_areas(make.plain(), clean=0.931, noise=0.927, protected=0.604)
    text = render(make.results([recipe, make.cropped()]), pictures)
    (table,) = re.findall(r'aria-label="Balanced accuracy and area under the curve">.*?</table>', text, flags=re.DOTALL)
    assert table.count('scope="rowgroup"') == 2
    for area in ("0.931", "0.927", "0.604"):
        assert area in table
    other = make.cropped()
    for victim in (victim for entry in other["sets"] for victim in entry["seeds"]):
        victim["measures"] = {"mean IoU": 0.5}
    heading = "<h2>Accuracy, balanced accuracy and ranking"
    assert heading in text
    assert heading not in render(make.results([other]), pictures)


def test_what_was_read_at_three_sizes_has_a_chart(make, pictures):
    sizes = [{**make.plain(), "name": name} for name in ("plain", "size-16", "size-24")]
    two = [{**make.cropped(), "name": name} for name in ("crop-flip", "size-16+crop-flip")]
    results = make.results([*sizes, *two])
    ((title, chart),) = size_charts(results)
    assert title == "no augmentation"
    assert "16, 24, 32 pixels: clean control 71.5%, 71.5%, 71.5%" in chart
    assert "at which images are read, no augmentation" in chart
    assert chart in render(results, pictures)
    assert "Read at other sizes" not in render(make.results(two), pictures)


def named(recipe, name, share):
    return {**recipe, "name": name, "gain": {**recipe["gain"], "share": share}}


def test_a_curve_runs_from_clean_samples_to_protected_ones(make):
    results = make.results(
        [make.plain(), named(make.mixed((0.5, 0.5, 0.5)), "mix-0.8", 0.8), named(make.mixed(), "mix-0.2", 0.2)]
    )
    (chart,) = mixtures(results)
    root = ElementTree.fromstring(chart)
    described = " ".join(root.itertext())
    assert "0%, 20%, 80%, 100%" in described
    clean, protected = (
        entry["mean"] for entry in results["recipes"][0]["sets"] if entry["set"] in ("clean", "protected")
    )
    expected = ", ".join(f"{100 * value:.1f}%" for value in (clean, 0.62, 0.5, protected))
    assert f"mixture {expected}" in described
    assert f"its clean part alone {100 * clean:.1f}%, 59.0%, 59.0%, none" in described


def test_there_is_no_curve_without_mixtures_of_the_same_recipe(make, pictures):
    assert mixtures(make.results([make.plain(), make.cropped()])) == []
    assert mixtures(make.results([make.plain(), named(make.mixed(), "mix-0.5@vgg16", 0.5)])) == []
    assert mixtures(make.results([make.plain(), named(make.mixed(), "dfr-10", 0.9)])) == []
    assert "Mixed with clean" not in render(make.results([make.plain()]), pictures)


def test_the_report_shows_it(make, pictures):
    page = render(make.results([make.plain(), make.mixed()]), pictures)
    assert "Mixed with clean images" in page
    assert "Accuracy over the protected share" in page


def test_the_table_of_recipes_has_a_column_for_each_control(make, pictures):
    recipes = [make.plain(), make.plain()]
    recipes[1]["name"], recipes[1]["title"] = "grayscale", "grayscale"
    for recipe in recipes:
        spectrum = copy.deepcopy(recipe["sets"][1])
        spectrum["set"], spectrum["title"] = "spectrum", "random noise, same spectrum"
        recipe["sets"].insert(2, spectrum)
    page = render(make.results(recipes), pictures)
    table = page[page.index('aria-label="Recipes at a glance"') :].partition("</table>")[0]
    head, *rows = table.split("<tr")[1:]
    assert head.count("<th") == 1 + 4 + 1
    assert all(row.count("<td") == 4 + 1 for row in rows)
    assert "random noise, same spectrum" in head
