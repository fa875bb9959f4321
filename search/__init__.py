"""A search: its space (space), its study (study), and the driver that keeps runs going and judges them (driver)."""
