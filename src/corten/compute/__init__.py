"""Work in containers: functions, warm forks, pools, and what speaks Python's standard interfaces on top of them."""
