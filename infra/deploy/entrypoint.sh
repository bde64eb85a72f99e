#!/usr/bin/env bash
# Takes secrets that are mounted as files into the environment, where Airflow, MLflow and the object store's client
# look for them; a variable that is set already stays. Then becomes the command.
set -euo pipefail

folder="${SECRETS_FOLDER:-/run/secrets}"
take() { # variable $1 from file $2
  if [ -z "${!1:-}" ] && [ -r "$folder/$2" ]; then
    export "$1=$(<"$folder/$2")"
  fi
}
take AIRFLOW__API_AUTH__JWT_SECRET jwt_secret
take AIRFLOW__CORE__FERNET_KEY fernet_key
take AWS_SECRET_ACCESS_KEY store_secret_key
take MLFLOW_FLASK_SERVER_SECRET_KEY mlflow_secret_key
take MLFLOW_TRACKING_PASSWORD mlflow_password
take POSTGRES_PASSWORD postgres_password

if [ -n "${POSTGRES_HOST:-}" ]; then
  : "${POSTGRES_PASSWORD:?error: POSTGRES_PASSWORD: seen nothing; allowed: the variable, or a file $folder/postgres_password}"
  export POSTGRES_PASSWORD
  # In a URL, where @, / and others would end the password.
  password=$(python -c "import os, urllib.parse as u; print(u.quote(os.environ['POSTGRES_PASSWORD'], safe=''))")
  server="hymirec:$password@$POSTGRES_HOST:${POSTGRES_PORT:-5432}"
  export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql+psycopg2://$server/airflow"
  export MLFLOW_DATABASE="postgresql://$server/mlflow" MLFLOW_AUTH_DATABASE="postgresql://$server/mlflow_auth"
fi

# Airflow writes to this file, so it gets a copy of its own.
passwords="${AIRFLOW_HOME:-/nowhere}/simple_auth_manager_passwords.json.generated"
if [ -r "$folder/airflow_passwords" ] && [ -n "${AIRFLOW_HOME:-}" ] && [ ! -e "$passwords" ]; then
  mkdir -p "$AIRFLOW_HOME"
  (umask 077 && cat "$folder/airflow_passwords" >"$passwords")
fi
exec "$@"
