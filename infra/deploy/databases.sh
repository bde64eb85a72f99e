#!/usr/bin/env bash
# Run by PostgreSQL's image when its volume is empty: the databases beside `airflow`.
set -euo pipefail
for name in mlflow mlflow_auth; do
  createdb --username "$POSTGRES_USER" "$name"
done
