"""The layers that instances locate (Sec. 4.2) on the demo, under every convention.

`python experiments/layers.py` writes figures/tables/layers.*
"""

from tables_common import script

INSTANCES, SEED = 270, 0

if __name__ == "__main__":
    script(__doc__, "layers", "--limit", str(INSTANCES), "--seed", str(SEED))
