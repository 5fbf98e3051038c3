        rows.append(f"<tr><td>{html.escape(name)}</td><td>{price:.2f}</td></tr>")
    return "".join(rows)
