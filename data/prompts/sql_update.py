import psycopg2


class DeviceStore:
    def __init__(self, conn, log):
        self.conn = conn
        self.log = log

    def rename_device(self, serial, owner, new_name):
        """Give a device of one owner a new name; returns False if there is none."""
        new_name = new_name.strip()
        if not new_name or len(new_name) > 60:
            raise ValueError("the name must have 1 to 60 characters")

        cur = self.conn.cursor()
