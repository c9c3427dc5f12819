from __future__ import annotations

import pytest

from hpcule.config.errors import StoreError
from hpcule.publish.collection import published_names


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.png", "b.PNG", "c.webp", "d.Tiff", "e.bmp"], ["a.png", "b.PNG", "c.webp", "d.Tiff", "e.bmp"]),
        (["a.jpg", "b.JPEG"], ["a.png", "b.png"]),
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png"]),
        (["a.jpeg", "a.jpg"], ["a.png", "a.jpg.png"]),
        (["A.jpg", "a.png"], ["A.jpg.png", "a.png"]),  # one name where upper and lower case are one
        (["a.jpg", "a.jpg.png", "a.png"], ["a.jpg.png.png", "a.jpg.png", "a.png"]),
        (["x/a.jpg", "y/a.png"], ["x/a.png", "y/a.png"]),
        (["a.b.jpg", "no suffix"], ["a.b.png", "no suffix.png"]),
    ],
)
def test_endings_change_only_where_the_format_must(files, names):
    assert published_names(files) == names


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "x/../../a.jpg", ""])
def test_no_name_leads_out(name):
    with pytest.raises(StoreError, match="leads out of the folder"):
        published_names([name])
