"""The Spark session of a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.sql import DataFrame, SparkSession

from jobs.platform.local import REPOSITORY, packaged_java

_DEFAULTS = {
    "spark.executorEnv.PYTHONPATH": str(REPOSITORY),
    "spark.sql.session.timeZone": "UTC",
    # Thousands of days are thousands of folders: listing them in a Spark job costs more than it saves.
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.parquet.compression.codec": "zstd",
    # Rows that are sorted by their group already are not sorted, or hashed, once more.
    "spark.sql.execution.replaceHashWithSortAgg": "true",
    # A folder name is text: ds=2017-01-01 stays a string, bucket=007 too.
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # pandas writes timestamps in nanoseconds, which Spark reads only as int64.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    # Our tables become visible by their own pointer, so a second rename of every file buys nothing.
    "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "2",
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
}
_OURS = REPOSITORY / "infra" / "spark"
"""What the JVM must know at its start."""
MANY_ROWS = 3_000_000
_BOTH_COMPILERS = "-XX:+UseParallelGC"
"""Takes the place of the options in ``_OURS``, which leave the optimising compiler out."""


def session(app_name: str, rows: int = 0) -> SparkSession:
    """Return this process's Spark session, started if need be.

    The master is the one that spark-submit names, else ``local[*]``. Settings given on spark-submit's
    command line win over this module's.

    Parameters
    ----------
    app_name : str
        Name shown by a cluster manager.
    rows : int, default=0
        About how many rows will be read. From MANY_ROWS on the optimising compiler is worth what it costs: it takes
        seconds, and halves the time of a row.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    java = packaged_java()
    if java is not None:
        os.environ["JAVA_HOME"] = str(java)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_CONF_DIR", str(_OURS))
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        SparkContext._ensure_initialized()  # started by spark-submit: its settings are in the JVM
    elif "--master" not in os.environ.get("PYSPARK_SUBMIT_ARGS", ""):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # else Spark binds the outer interface
    conf = SparkConf()
    for key, value in _DEFAULTS.items():
        conf.setIfMissing(key, value)
    if rows >= MANY_ROWS and Path(os.environ["SPARK_CONF_DIR"]) == _OURS:
        conf.setIfMissing("spark.driver.extraJavaOptions", _BOTH_COMPILERS)
    conf.setIfMissing("spark.ui.showConsoleProgress", str(sys.stderr.isatty()).lower())
    spark = SparkSession.builder.config(conf=conf).appName(app_name).getOrCreate()
    if (spark.sparkContext.master or "").startswith("local"):
        # 200 shuffle tasks, the default, cost more than the work they share on one machine.
        spark.conf.set("spark.sql.shuffle.partitions", str(2 * spark.sparkContext.defaultParallelism))
    return spark


@contextmanager
def persisted(rows: DataFrame) -> Iterator[DataFrame]:
    """Keep rows that are read several times; what is left of them would also serve later reads of the same files."""
    kept = rows.persist()
    try:
        yield kept
    finally:
        kept.unpersist()
