from hanzo_compute_host.cli.main import main

if __name__ == "__main__":
    main()
