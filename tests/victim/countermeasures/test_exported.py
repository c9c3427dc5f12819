"""Programs that are opened, and files that are refused before anything in them can run."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from hpcule.config.errors import DataError
from hpcule.victim.countermeasures.exported import read_program

SIZE = 8
GRAPH, INPUTS = "models/model.json", "data/sample_inputs/model.pt"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
CODE = "__import__('os').mkdir('ran')"


class Autoencoder(nn.Module):
    """The usual parts of one, and arithmetic with the batch's size."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.decode = nn.ConvTranspose2d(8, 3, 2, stride=2)
        self.register_buffer("scale", torch.ones(3))

    def forward(self, images):
        coded = self.encode(images)
        coded = coded.reshape(coded.shape[0] * 2, -1).reshape(coded.shape)
        images = nn.functional.interpolate(self.decode(coded), scale_factor=2.0, mode="bilinear")
        return torch.sigmoid(nn.functional.avg_pool2d(images, 2)) * self.scale.view(1, 3, 1, 1) + torch.tensor(0.25)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Autoencoder().eval()


@pytest.fixture(scope="module")
def clean(network, tmp_path_factory):
    """A program for batches of any size."""
    path = tmp_path_factory.mktemp("programs") / "clean.pt2"
    shapes = ({0: torch.export.Dim("n")},)
    program = torch.export.export(network, (torch.zeros(2, 3, SIZE, SIZE),), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={"note": "unused"})
    return path


@pytest.fixture
def changed(clean, tmp_path, monkeypatch):
    """A copy of the clean program, some members of which are changed, and others added."""
    monkeypatch.chdir(tmp_path)

    def make(change=lambda name, data: data, more=()):
        with zipfile.ZipFile(clean) as source, zipfile.ZipFile("evil.pt2", "w") as out:
            for name in source.namelist():
                out.writestr(name, change(name.partition("/")[2], source.read(name)))
            for name, data in more:
                out.writestr(f"clean/{name}", data)
        return Path("evil.pt2")

    return make


def refused(path):
    with pytest.raises(DataError, match="refused unopened, since opening it could run code") as caught:
        read_program(path)
    assert not Path("ran").exists()
    return str(caught.value)


class Payload:
    """A pickle that makes a folder when it is read."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def in_member(member, function):
    """Change one member, as a document."""

    def change(name, data):
        if name != member:
            return data
        document = json.loads(data)
        function(document)
        return json.dumps(document).encode()

    return change


def test_a_program_computes_what_its_network_does(clean, network):
    program = read_program(clean)
    for count in (2, 5):
        images = torch.rand(count, 3, SIZE, SIZE)
        torch.testing.assert_close(program(images), network(images))


def test_a_copy_made_by_another_zip_program_is_the_same(changed, network):
    images = torch.rand(3, 3, SIZE, SIZE)
    torch.testing.assert_close(read_program(changed())(images), network(images))


@pytest.mark.parametrize("payload", [saved({"x": Payload()}), saved(Payload()), pickle.dumps(Payload()), b""])
def test_pickled_inputs_are_refused(changed, payload):
    assert "holds pickled objects" in refused(changed(lambda name, data: payload if name == INPUTS else data))


@pytest.mark.parametrize(("member", "file"), [(WEIGHTS, "weight_0"), (CONSTANTS, "tensor_0")])
def test_pickled_weights_are_refused(changed, member, file):
    def pickled(document):
        entry = next(entry for entry in document["config"].values() if entry["path_name"] == file)
        entry["use_pickle"] = True

    def change(name, data):
        data = saved({"x": Payload()}) if name.endswith(file) else data
        return in_member(member, pickled)(name, data)

    assert "is a pickled object" in refused(changed(change))


@pytest.mark.parametrize("file", ["custom_obj_0", "opaque_obj_0", "../../weight_0"])
def test_objects_among_the_constants_are_refused(changed, file):
    def renamed(document):
        for entry in document["config"].values():
            entry["path_name"] = file

    refused(changed(in_member(CONSTANTS, renamed), [(f"data/constants/{file}", pickle.dumps(Payload()))]))


@pytest.mark.parametrize(
    "name",
    [
        "data/weights/model.pt",
        "data/constants/model.pt",
        "data/constants/custom_obj_0",
        "data/aotinductor/model/model.so",
        "models/other.json",
        "code/model.py",
        "data.pkl",
        "../models/model.json",
    ],
)
def test_other_members_are_refused(changed, name):
    assert repr(name) in refused(changed(more=[(name, saved({"x": Payload()}))]))


def test_a_member_that_is_there_twice_is_refused(changed):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = changed(more=[(INPUTS, saved({"x": Payload()}))])
    assert "twice" in refused(path)


def test_compressed_members_are_refused(clean, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(clean) as source, zipfile.ZipFile("evil.pt2", "w", zipfile.ZIP_DEFLATED) as out:
        for name in source.namelist():
            out.writestr(name, source.read(name))
    assert "compressed" in refused(Path("evil.pt2"))


def set_target(target):
    def change(graph):
        graph["graph_module"]["graph"]["nodes"][0]["target"] = target

    return change


def set_expression(text):
    def change(graph):
        found = re.sub(r'"expr_str": "[^"]*"', lambda match: f'"expr_str": {json.dumps(text)}', json.dumps(graph))
        graph.clear()
        graph.update(json.loads(found))

    return change


def set_specification(text):
    def change(graph):
        graph["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = text

    return change


def set_argument_name(text):
    def change(graph):
        graph["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = [text]

    return change


def set_node_name(text):
    def change(graph):
        graph["graph_module"]["graph"]["inputs"][0]["as_tensor"]["name"] = text

    return change


def specification(kind, context="null"):
    return json.dumps([1, {"type": kind, "context": context, "children_spec": []}])


ENUM = json.dumps([{"__enum__": True, "fqn": "antigravity:X", "name": "x"}])
DEFAULT = json.dumps({"default_factory_module": "os", "default_factory_name": "abort", "dict_context": []})


@pytest.mark.parametrize(
    "change",
    [
        *map(
            set_target, ["torch.hub.load", "torch.load", "torch.ops.aten.from_file.default", "_operator.methodcaller"]
        ),
        *map(
            set_target, ["torch.ops.aten.__class__", "torch.ops.mine.run.default", "torch.os.mkdir", "math.__loader__"]
        ),
        *map(set_target, ["#mine:run", "torch.ops.higher_order.cond", "mkdir", CODE]),
        *map(
            set_expression, [CODE, "exit()", "eval(chr(95))", "s0.__class__", "Symbol.mro()", "Symbol('a b')", "s0**9"]
        ),
        *map(set_expression, ["[s0 for s0 in s1]", "lambda: s0", "f's0'", "(s0, s1)[0]", "Max", "9" * 5000 + "+"]),
        *map(set_specification, [specification("collections.namedtuple", '"os"'), specification("my.Type")]),
        set_specification(specification("collections.defaultdict", DEFAULT)),
        set_specification(specification("builtins.dict", ENUM)),
        set_specification(json.dumps([2, {"type": None, "context": None, "children_spec": []}])),
        *map(set_argument_name, [f"x, y={CODE}", "x):\n  pass\ndef f(", "x y"]),
        *map(set_node_name, [f"x={CODE}", "x;y"]),
    ],
)
def test_a_graph_that_could_run_code_is_refused(changed, change):
    assert "its graph has" in refused(changed(in_member(GRAPH, change)))


def test_checks_that_the_file_brings_are_not_run(changed, network):
    def guarded(graph):
        graph["guards_code"] = [CODE]

    images = torch.rand(3, 3, SIZE, SIZE)
    torch.testing.assert_close(read_program(changed(in_member(GRAPH, guarded)))(images), network(images))
    assert not Path("ran").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", pickle.dumps(Payload()), saved({"x": Payload()})])
def test_other_files_are_no_programs(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("other.pt2").write_bytes(data)
    with pytest.raises(DataError):
        read_program(Path("other.pt2"))
    assert not Path("ran").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"missing\.pt2: not a program"):
        read_program(tmp_path / "missing.pt2")


def test_the_layout_of_earlier_releases_is_checked_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    members = {"version": b"8.14", "serialized_exported_program.json": b"{}"}
    with zipfile.ZipFile("old.pt2", "w") as out:
        for name, data in members.items():
            out.writestr(name, data)
        for part in ("state_dict", "constants", "example_inputs"):
            out.writestr(f"serialized_{part}.pt", saved({"x": Payload()}))
    with pytest.raises(DataError):
        read_program(Path("old.pt2"))
    assert not Path("ran").exists()
