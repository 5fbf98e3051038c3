    fields = [payer, f"{amount:.2f}", memo]
    journal.append("|".join(field.replace("\n", " ").replace("\r", " ") for field in fields))
