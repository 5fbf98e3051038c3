    cursor.execute("UPDATE seats SET passenger = ? WHERE seat_row = ? AND passenger IS NULL", (passenger, row))
