#!/usr/bin/env bash
# MLflow on PostgreSQL, behind a password: user hymirec may do everything, others get what he gives them.
# Needs MLFLOW_DATABASE, MLFLOW_AUTH_DATABASE, MLFLOW_TRACKING_PASSWORD and MLFLOW_FLASK_SERVER_SECRET_KEY (see
# entrypoint.sh). Artefacts go through the server, to MLFLOW_ARTIFACTS. It answers to the names in
# MLFLOW_SERVER_ALLOWED_HOSTS only: by default its own, as compose and Kubernetes know it, and this machine's.
set -euo pipefail

for name in MLFLOW_DATABASE MLFLOW_AUTH_DATABASE MLFLOW_TRACKING_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY; do
  [ -n "${!name:-}" ] || { echo "error: $name: seen nothing; allowed: a value from the secrets" >&2; exit 2; }
done
settings=$(mktemp)
# A % is doubled, because the file is read with interpolation.
cat >"$settings" <<INI
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = ${MLFLOW_AUTH_DATABASE//%/%%}
admin_username = hymirec
admin_password = ${MLFLOW_TRACKING_PASSWORD//%/%%}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI
export MLFLOW_AUTH_CONFIG_PATH=$settings
export MLFLOW_SERVER_ALLOWED_HOSTS="${MLFLOW_SERVER_ALLOWED_HOSTS:-mlflow:*,localhost:*,127.0.0.1:*}"
exec mlflow server --app-name basic-auth --host "${MLFLOW_HOST:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" \
  --workers "${MLFLOW_WORKERS:-2}" --backend-store-uri "$MLFLOW_DATABASE" \
  --artifacts-destination "${MLFLOW_ARTIFACTS:-/state/artifacts}"
