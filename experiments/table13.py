"""Table 13 of the paper on the demo, DINM at every layer.

`python experiments/table13.py` writes figures/tables/table13.*
"""

from tables_common import script

INSTANCES, SEED = 36, 0

if __name__ == "__main__":
    script(__doc__, "table13", "--limit", str(INSTANCES), "--seed", str(SEED))
