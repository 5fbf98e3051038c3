        rows.append(f"<tr><td>{name}</td><td>{price:.2f}</td></tr>")
    return "".join(rows)
