    return MONTHS[month - 1];
}
