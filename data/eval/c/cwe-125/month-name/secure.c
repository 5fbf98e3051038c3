    if (month < 1 || month > 12)
        return "?";
    return MONTHS[month - 1];
}
