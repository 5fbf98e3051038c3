    sprintf(badge, "#%d %.23s", id, name);
}
