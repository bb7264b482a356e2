"""python -m harness COMMAND: what the make targets call."""

import os
import sys

from .place import Failed


def main(command, arguments):
    if command in ("up", "down", "psql", "logs", "stats", "produce", "demo", "dbt"):
        from . import session
        if command == "demo":
            session.demo(int(os.environ.get("N") or 1_000_000))
        elif command == "up":
            up = session.Session().up()
            print(f"up:\n{up.where()}\nnext: make produce, make stats, make psql, make down")
        elif command == "down":
            session.Session().down()
        elif command == "produce":
            session.produce()
        elif command == "dbt":
            from . import dbt
            dbt.on_session(session.Session().require())
        else:
            getattr(session.Session().require(), command)()
    elif command == "install":
        from .postgres import Installation
        print(Installation(testing="testing" in arguments).prepare().root)
    elif command == "bench":
        from . import suites
        suites.bench(arguments)
    elif command == "bench-dbt":
        from . import suites
        suites.bench(arguments, "dbt_models.py")
    else:
        from . import suites
        return suites.main(command, arguments)
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m harness COMMAND; see `make help`")
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
    except Failed as failed:
        sys.exit(f"\n{failed}")
    except KeyboardInterrupt:
        sys.exit(130)
