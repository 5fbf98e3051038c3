        result += f"<option{mark}>{escape(city)}</option>"
    return result
