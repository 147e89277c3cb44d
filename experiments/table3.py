"""Tables 3 and 14 of the paper on the demo, a few edits against trained models on SafeEdit_test_ALL.

`python experiments/table3.py` writes figures/tables/table3.*
"""

from tables_common import script

EDITS, SEED = 9, 0

if __name__ == "__main__":
    script(__doc__, "table3", "--limit", str(EDITS), "--seed", str(SEED))
