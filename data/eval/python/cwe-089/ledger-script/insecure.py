    db.executescript(f"""
        INSERT INTO archive SELECT * FROM ledger WHERE month = '{month}';
        DELETE FROM ledger WHERE month = '{month}';
    """)
