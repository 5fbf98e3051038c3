    if (strlen(item) >= size)
        return 0;
    strcat(list, separator);
    strcat(list, item);
    return 1;
}
