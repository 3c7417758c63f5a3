"""Read damaged files with every reader of the library, and print what is wrong with the outcome.

Example:
    python tests/fuzz --cases 2000 --only sog --seed 1
"""
import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from harness import Fuzzer


def main() -> int:
    parser = argparse.ArgumentParser(prog='python tests/fuzz', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', type=int, default=500, metavar='N', help='cases per target, default %(default)s')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='targets whose names start so')
    parser.add_argument('--seed', type=int, default=0, metavar='S')
    parser.add_argument('--case', type=int, metavar='I', help='run this case only')
    parser.add_argument('--keep', type=Path, metavar='FOLDER', help='write the damaged files of --case there')
    options = parser.parse_args()
    found = set()
    with Fuzzer() as fuzzer:
        names = [name for name in fuzzer.targets if not options.only or name.startswith(tuple(options.only))]
        for name in names:
            counts, start = Counter(), time.monotonic()
            for case in range(options.cases) if options.case is None else [options.case]:
                outcome = fuzzer.run(name, options.seed, case)
                counts[outcome.kind] += 1
                place = (name, outcome.kind, outcome.detail.partition(':')[0], outcome.detail.rpartition('(')[2])
                if options.case is not None or (not outcome.fine and place not in found):  # each place once
                    print(outcome, flush=True)
                if not outcome.fine:
                    found.add(place)
            print(f'{name}: {dict(counts)} in {time.monotonic() - start:.1f} s', flush=True)
            if options.keep:
                print(f'kept: {fuzzer.make(name, options.seed, options.case or 0, options.keep / name)}')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
