    fields = [payer, f"{amount:.2f}", memo]
    journal.append("|".join(fields))
