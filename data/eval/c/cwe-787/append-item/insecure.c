    strcat(list, separator);
    strcat(list, item);
    return 1;
}
