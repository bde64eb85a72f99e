#!/usr/bin/env bash
# Makes the secrets that compose.yaml mounts, once: one file each in infra/deploy/secrets (or the folder $1), which only
# its owner can enter. The files themselves can be read by all, because the user of a container is another one.
set -euo pipefail
folder=${1:-$(dirname "${BASH_SOURCE[0]}")/secrets}

mkdir -p "$folder"
chmod 700 "$folder"
word() { python3 -c 'import secrets; print(secrets.token_urlsafe(32), end="")'; }
for name in jwt_secret mlflow_password mlflow_secret_key postgres_password store_secret_key; do
  [ -s "$folder/$name" ] || word >"$folder/$name"
done
[ -s "$folder/fernet_key" ] ||
  python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode(), end="")' >"$folder/fernet_key"
[ -s "$folder/airflow_passwords" ] || printf '{"admin": "%s"}' "$(word)" >"$folder/airflow_passwords"
echo "secrets are in $folder; people log in with airflow_passwords and, as hymirec, with mlflow_password"
