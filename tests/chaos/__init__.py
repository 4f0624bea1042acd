"""The chaos suite: traffic over a schedule of faults, and a checker that compares hub, database and bus afterwards.

Pure: `schedule`, `traffic`, `checker` (with `purchases` and `streams`), `recovery`, `level`, `report`. The world:
`stage`, `troupe`, `clients`, `conductor`, `gathering`. `campaign` and `soak` put them together; `python -m tests.chaos`
runs them. Beside them: deaths at every write (`test_kill_points`), odd messages by the thousand (`fuzz`).
"""
