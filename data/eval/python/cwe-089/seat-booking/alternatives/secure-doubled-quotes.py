    passenger = passenger.replace("'", "''")
    cursor.execute("UPDATE seats SET passenger = '%s' WHERE seat_row = %d AND passenger IS NULL" % (passenger, row))
