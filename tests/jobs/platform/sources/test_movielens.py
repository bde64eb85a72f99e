"""The three layouts of MovieLens, byte for byte as their files are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.platform.errors import JobError

TOY_STORY = {"item_id": "1", "title": "Toy Story (1995)", "category": "Animation, Children's, Comedy"}


def put(folder: Path, **files: bytes) -> str:
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return str(folder)


def test_100k(read: Callable[..., Any], tmp_path: Path) -> None:
    data = put(
        tmp_path,
        u_data=b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n1\t267\tx\t874965758\n22\t377\t1\n",
        u_item=(
            b"1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)"
            b"|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
            b"267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
            b'543|Mis\xe9rables, Les "(1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Mis%E9rables'
            b"|0|0|0|0|0|0|0|0|1|0|0|0|1|0|0|0|0|0|0\n"
        ),
        u_genre=b"unknown|0\nAction|1\n",
        u1_base=b"1\t1\t5\t874965758\n",  # a part of u.data
    )
    events, items, faults = read("movielens", data=data)
    assert events == [
        {"user_id": "196", "item_id": "242", "weight": 3.0, "timestamp": 881250949, "event": "rating"},
        {"user_id": "186", "item_id": "302", "weight": 3.0, "timestamp": 891717742, "event": "rating"},
    ]
    assert items == [
        TOY_STORY,
        {"item_id": "267", "title": "unknown", "category": None},
        {"item_id": "543", "title": 'Misérables, Les "(1995)', "category": "Drama, Musical"},
    ]
    assert [(file, column, reason) for file, _, column, reason in faults] == [
        ("u.data", "line", "not 4 columns"),
        ("u.data", "weight", "no number"),
    ]
    assert faults[0][1] == "22\t377\t1"


def test_1m(read: Callable[..., Any], tmp_path: Path) -> None:
    data = put(
        tmp_path,
        ratings_dat=b"1::1193::5::978300760\n1::661::3::978302109\nnonsense\n",
        movies_dat=(
            b"1::Toy Story (1995)::Animation|Children's|Comedy\n"
            b"73::Mis\xe9rables, Les (1995)::Drama|Musical\n"
            b'2820::"Hamlet" (1964)::Drama\n'
            b"3306::Circus, The (1928)::Com\xc3\xa9die\n"  # 10m has UTF-8
        ),
        users_dat=b"1::F::1::10::48067\n",
    )
    events, items, faults = read("movielens", data=data)
    assert [tuple(row.values()) for row in events] == [
        ("1", "1193", 5.0, 978300760, "rating"),
        ("1", "661", 3.0, 978302109, "rating"),
    ]
    assert [tuple(row.values()) for row in items] == [
        tuple(TOY_STORY.values()),
        ("73", "Misérables, Les (1995)", "Drama, Musical"),
        ("2820", '"Hamlet" (1964)', "Drama"),
        ("3306", "Circus, The (1928)", "Comédie"),
    ]
    assert faults == [("ratings.dat", "nonsense", "line", "not 4 columns")]


def test_20m_and_later(read: Callable[..., Any], tmp_path: Path) -> None:
    data = put(
        tmp_path,
        ratings_csv=b"userId,movieId,rating,timestamp\r\n1,2,3.5,1112486027\r\n1,29,3.5,1112484676\r\n",
        movies_csv=(
            b"movieId,title,genres\r\n"
            b"1,Toy Story (1995),Animation|Children's|Comedy\r\n"
            b'11,"American President, The (1995)",Comedy|Drama|Romance\r\n'
            b'140956,"""Great Performances"" Cats (1998)",Musical\r\n'
            b"141131,Guardians of Oz (2015),(no genres listed)\r\n"
            b'80748,"Alice in Wonderland (1933) \xc3\xa9",\r\n'
        ),
        tags_csv=b"userId,movieId,tag,timestamp\r\n18,4141,Mark Waters,1240597180\r\n",
    )
    events, items, faults = read("movielens", data=data)
    assert [tuple(row.values()) for row in events] == [
        ("1", "2", 3.5, 1112486027, "rating"),
        ("1", "29", 3.5, 1112484676, "rating"),
    ]
    assert [tuple(row.values()) for row in items] == [
        tuple(TOY_STORY.values()),
        ("11", "American President, The (1995)", "Comedy, Drama, Romance"),
        ("140956", '"Great Performances" Cats (1998)', "Musical"),
        ("141131", "Guardians of Oz (2015)", None),
        ("80748", "Alice in Wonderland (1933) é", None),
    ]
    assert not faults


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"ratings_csv": b"x"}, "seen .*/ratings.csv; allowed: one folder with u.data with u.item, or ratings.dat"),
        (dict.fromkeys(("u_data", "u_item", "ratings_dat", "movies_dat"), b"x"), "allowed: one folder with"),
        ({"readme_txt": b"x"}, "seen no u.data or u.item or ratings.dat or .* file there"),
    ],
)
def test_other_folders(read: Callable[..., Any], tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(JobError, match=message):
        read("movielens", data=put(tmp_path, **files))


def test_no_folder(read: Callable[..., Any]) -> None:
    with pytest.raises(JobError, match="--source movielens needs a folder: seen none; allowed: --data FOLDER"):
        read("movielens")
