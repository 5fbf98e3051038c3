    while (text[position] == ' ')
        position++;
    return position < length ? position : length;
}
