    cur.execute("DELETE FROM coupons WHERE code = ?", [code])
    return cur.rowcount
