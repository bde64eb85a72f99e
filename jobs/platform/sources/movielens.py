"""MovieLens in its three layouts, recognised by the files in the folder.

- 100k: ``u.data`` with tabs, ``u.item`` with bars and a flag a genre;
- 1m and 10m: ``ratings.dat`` and ``movies.dat`` with ``::``;
- 20m, 25m, 32m and latest: ``ratings.csv`` and ``movies.csv`` with a header and quotes.

Titles of the older ones are ISO-8859-1, those of the others UTF-8. A rating becomes an event ``rating`` with its stars
as weight, the genres become the category.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.platform.errors import JobError
from jobs.platform.sources.shape import Found, Given, TimeUnit, find_files
from jobs.platform.sources.text import Layout, events_of, items_of, read_separated

# Flags of u.item in their order, as u.genre has it; the first one, "unknown", is no genre.
GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_RATING = ("user_id", "item_id", "weight", "timestamp")
_MOVIE = ("item_id", "title", "category")
_FLAGS = ("unknown", *GENRES)


@dataclass(frozen=True, slots=True)
class Release:
    """How a release of MovieLens is laid out."""

    ratings: str
    """Name of the file."""
    movies: str
    rating_layout: Layout
    movie_layout: Layout
    category: Callable[[DataFrame], DataFrame]
    """Makes the category of what is in the movies' columns."""


def _of_flags(movies: DataFrame) -> DataFrame:
    genres = F.concat_ws(", ", *(F.when(F.col(name) == "1", name) for name in GENRES))
    return movies.withColumn("category", F.nullif(genres, F.lit(""))).drop(*_FLAGS)


def _of_names(movies: DataFrame) -> DataFrame:
    named = F.when(F.col("category") != "(no genres listed)", F.col("category"))
    return movies.withColumn("category", F.replace(named, F.lit("|"), F.lit(", ")))


RELEASES = (
    Release(
        "u.data",
        "u.item",
        Layout(names=_RATING, separator="\t", quote="", header=False),
        Layout(
            names=("item_id", "title", "released", "video", "url", *_FLAGS),
            separator="|",
            quote="",
            header=False,
            old=True,
        ),
        _of_flags,
    ),
    Release(
        "ratings.dat",
        "movies.dat",
        Layout(names=_RATING, separator="::", quote="", header=False),
        Layout(names=_MOVIE, separator="::", quote="", header=False, old=True),
        _of_names,
    ),
    Release("ratings.csv", "movies.csv", Layout(names=_RATING), Layout(names=_MOVIE), _of_names),
)


def find(given: Given) -> Found:
    """Find the files of a release.

    Raises
    ------
    JobError
        If the folder holds none, or more than one.
    """
    if not given.data:
        raise JobError("--source movielens needs a folder: seen none; allowed: --data FOLDER")
    names = tuple(name for release in RELEASES for name in (release.ratings, release.movies))
    pairs = [f"{release.ratings} with {release.movies}" for release in RELEASES]
    files = find_files("data", given.data, names)
    by_name = {path.rpartition("/")[2]: path for path in files.sizes}
    found = [release for release in RELEASES if {release.ratings, release.movies} <= by_name.keys()]
    if len(found) != 1 or len(files.sizes) != 2:
        seen = ", ".join(files.sizes)
        raise JobError(f"--data {given.data}: seen {seen}; allowed: one folder with {', or '.join(pairs)}")
    (release,) = found
    ratings, movies = files.only([by_name[release.ratings]]), files.only([by_name[release.movies]])

    def read_events(spark: SparkSession) -> DataFrame:
        wanted = {name: name for name in _RATING}
        rows = read_separated(spark, ratings.paths, release.rating_layout, wanted)
        return events_of(rows, TimeUnit.seconds).withColumn("event", F.lit("rating"))

    def read_items(spark: SparkSession) -> DataFrame:
        kept = {"item_id", "title", "category", *_FLAGS}.intersection(release.movie_layout.names)
        wanted = {name: name for name in release.movie_layout.names if name in kept}
        return items_of(
            release.category(read_separated(spark, movies.paths, release.movie_layout, wanted)), TimeUnit.seconds
        )

    return Found([ratings, movies], read_events, read_items)
