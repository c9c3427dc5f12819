"""Results for people: tables in a terminal, charts, self-contained HTML pages."""
