def journal_entry(journal, payer, amount, memo=""):
    """Append a payment to the journal, a list of lines: "PAYER|AMOUNT|MEMO", amount with two digits."""
