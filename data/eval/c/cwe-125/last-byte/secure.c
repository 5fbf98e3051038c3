    return length == 0 ? -1 : message[length - 1];
}
