from __future__ import annotations

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.platform.names import bucket_of


def test_buckets_are_those_that_spark_spreads_users_over(spark: SparkSession) -> None:
    users = ["2375", "user-007", "Zoë", ""]
    table = spark.createDataFrame([(user,) for user in users], "user_id string")
    bucket = F.lpad((F.crc32("user_id") % 101).cast("string"), 3, "0")
    found = {row.user_id: row.bucket for row in table.select("user_id", bucket.alias("bucket")).collect()}
    assert {user: f"bucket={bucket}" for user, bucket in found.items()} == {u: bucket_of(u, 101) for u in users}
