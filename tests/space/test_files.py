"""Search spaces in files."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

from parallelmlp_search.exceptions import InvalidParameterError, MissingDependencyError
from parallelmlp_search.space import Categorical, Float, Int, SearchSpace, When


@pytest.mark.parametrize("suffix", [".json", ".toml", ".yaml", ".yml"])
@pytest.mark.parametrize("preset", ["paper", "small", "default"])
def test_round_trip(tmp_path: Path, suffix: str, preset: str) -> None:
    space = SearchSpace.preset(preset)
    path = tmp_path / f"space{suffix}"
    space.save(path)
    assert SearchSpace.load(path) == space
    assert SearchSpace.resolve(str(path)) == space


def test_yaml_and_json_can_hold_none_and_toml_cannot(tmp_path: Path) -> None:
    space = SearchSpace.preset("deep")  # clip_norm may be None
    for suffix in (".json", ".yaml"):
        space.save(tmp_path / f"deep{suffix}")
        assert SearchSpace.load(tmp_path / f"deep{suffix}") == space
    with pytest.raises(InvalidParameterError, match="'clip_norm' holds None, which TOML cannot express"):
        space.save(tmp_path / "deep.toml")
    assert not (tmp_path / "deep.toml").exists()


HAND_WRITTEN = {
    ".yaml": """
learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}   # text in YAML 1.1, since it has no dot
depth: {type: int, low: 1, high: 3}
width: [32, 64]
residual: {choices: [false, true], when: {name: depth, at_least: 2}}
batch_size: 256
""",
    ".toml": """
width = [32, 64]
batch_size = 256
[learning_rate]
type = "float"
low = 1e-4
high = 1e-1
log = true
[depth]
type = "int"
low = 1
high = 3
[residual]
choices = [false, true]
when = { name = "depth", at_least = 2 }
""",
}


@pytest.mark.parametrize("suffix", sorted(HAND_WRITTEN))
def test_hand_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_text("\ufeff" + HAND_WRITTEN[suffix], encoding="utf-8")
    assert dict(SearchSpace.load(path).domains) == {
        "learning_rate": Float(1e-4, 1e-1, log=True),
        "depth": Int(1, 3),
        "width": Categorical((32, 64)),
        "residual": Categorical((False, True), when=When("depth", at_least=2)),
        "batch_size": Categorical((256,)),
    }


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "[1, 2]", "must hold a mapping, but holds a list"),
        ("a.yaml", "a: [1", "cannot be parsed"),
        ("a.json", "{", "cannot be parsed"),
        ("a.toml", "a = ", "cannot be parsed"),
        ("a.ymal", "", r"must end in one of .*; did you mean '\.yml'"),
        ("a.json", '{"depht": [1]}', "no name 'depht'; did you mean 'depth'"),
    ],
)
def test_invalid_files_are_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InvalidParameterError, match=words):
        SearchSpace.load(tmp_path / name)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match=r"none\.toml' cannot be read"):
        SearchSpace.resolve(tmp_path / "none.toml")


def test_resolve_accepts_spaces_presets_files_and_mappings() -> None:
    space = SearchSpace.preset("small")
    assert SearchSpace.resolve(space) is space
    assert SearchSpace.resolve("small") == space
    assert SearchSpace.resolve(space.to_dict()) == space
    assert SearchSpace.resolve({"width": Int(1, 3)}) == SearchSpace({"width": Int(1, 3)})
    with pytest.raises(InvalidParameterError, match="did you mean 'small'"):
        SearchSpace.resolve("smal")
    with pytest.raises(InvalidParameterError, match="search_space must be a SearchSpace"):
        SearchSpace.resolve(3)  # type: ignore[arg-type]


def test_a_missing_pyyaml_raises_an_error_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yaml").write_text("width: 3", encoding="utf-8")
    with pytest.raises(MissingDependencyError, match=r"pip install 'parallelmlp-search\[yaml\]'"):
        SearchSpace.load(tmp_path / "a.yaml")
    SearchSpace({"width": Int(1, 3)}).save(tmp_path / "a.toml")  # the others do not need it
    assert SearchSpace.load(tmp_path / "a.toml").size() == 3


NESTED = 100_000
HOSTILE = {
    "deep.json": ("[" * NESTED, "is nested too deeply"),
    "deep-mapping.json": ('{"a":' * NESTED + "1" + "}" * NESTED, "is nested too deeply"),
    "deep.yaml": ("[" * 3000, "is nested too deeply"),
    "deep-block.yaml": ("\n".join(" " * i + "a:" for i in range(900)), "is nested too deeply"),
    "deep.toml": ("a = " + "[" * NESTED, "is nested too deeply"),
    "deep-valid.json": ('{"width": ' + "[" * 100 + "]" * 100 + "}", "is nested too deeply"),
    "itself.yaml": ("width: &a [*a]", "is nested too deeply"),
    "billion-laughs.yaml": (
        "width: &a [1,2,3,4,5,6,7,8,9]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefghi")),
        "holds more than 10000 values",
    ),
    "long.json": ('{"width": [' + "9" * 5000 + "]}", "an integer has more than 4300 digits"),
    "long.yaml": ("width: [" + "9" * 5000 + "]", "an integer has more than 4300 digits"),
    "long.toml": ("width = [" + "9" * 5000 + "]", "an integer has more than 4300 digits"),
    "hexadecimal.yaml": ("width: [0x" + "f" * 6000 + "]", "integers must fit into 64 bits"),
    "hexadecimal.toml": ("width = [0x" + "f" * 6000 + "]", "integers must fit into 64 bits"),
    "digits.json": (
        '{"learning_rate": {"type": "float", "low": 1, "high": ' + "9" * 400 + "}}",
        "integers must fit into 64 bits",
    ),
    "tag.yaml": ("width: !!int abc", "cannot be parsed: invalid literal for int"),
    "date.yaml": ("width: 2020-99-99", "cannot be parsed: month must be in 1..12"),
    "large.json": ('{"width": [1]}' + " " * 2_000_000, "may have at most 1 MB, but has 2.0 MB"),
    "step.json": (
        '{"dropout": {"type": "float", "low": 0, "high": 0.5, "step": 5e-324}}',
        "step must give at most 9007199254740992 values, but got 5e-324",
    ),
    "referred.json": (
        '{"seed": {"type": "int", "low": 0, "high": 4294967295}, '
        '"dropout": {"choices": [0, 0.1], "when": {"name": "seed", "at_least": 2}}}',
        "conditions can refer to names of at most 100000 values, but 'seed' has 4294967296",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_with_one_sentence(tmp_path: Path, name: str) -> None:
    text, words = HOSTILE[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InvalidParameterError) as caught:
        SearchSpace.load(tmp_path / name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_folder_and_a_device_are_no_search_spaces(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(InvalidParameterError, match="must be a file, but"):
        SearchSpace.load(tmp_path / "a.json")
    if Path("/dev/zero").exists():
        (tmp_path / "b.json").symlink_to("/dev/zero")
        with pytest.raises(InvalidParameterError, match="must be a file, but"):
            SearchSpace.load(tmp_path / "b.json")


def test_integers_too_large_for_a_float_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="high must be a finite number"):
        Float(1.0, 10**400)
    with pytest.raises(InvalidParameterError, match="but got a number of 80001 bits"):
        Float(1.0, 16**20000)
    assert When("width", at_least=10**400).holds(3) is False


def test_many_choices_are_compared_quickly(tmp_path: Path) -> None:
    assert Categorical(tuple(range(100_000))).n_values == 100_000
    with pytest.raises(InvalidParameterError, match="choices must all differ, but got 7 twice"):
        Categorical((*range(100), 7))
